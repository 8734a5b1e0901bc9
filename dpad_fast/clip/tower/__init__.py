"""CLIP's two towers, run by this package: weights by role, packed rows, products chosen for the processor."""
