"""The paper's tables in the shapes world: `dpad-fast demo --ablations`."""
