"""TRL's `GRPOTrainer` with dpad-fast's group advantage; everything else that TRL and Accelerate bring is unchanged."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import PreTrainedModel
from trl import GRPOTrainer

from dpad_fast.train.group_advantage_mixin import GroupAdvantageMixin
from dpad_fast.train.paired_sampling import PairedNoise, pair_sampling
from dpad_fast.train.resume import MARKER, damage, last_complete, restore_weights, seal
from dpad_fast.train.saving import check_finite, prune, writing
from dpad_fast.train.shared_vision import share_vision


@contextmanager
def _only_plain_state(checkpoint: str | None, names: str) -> Iterator[None]:
    """Around the Trainer's loading of pickled state, which takes tensors and numbers only (`weights_only`)."""
    try:
        yield
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "PytorchStreamReader" not in str(error):  # not about the file
            raise
        raise ValueError(
            f"{checkpoint} is refused: its {names} cannot be read as tensors and numbers, and nothing else is loaded"
        ) from error


class DpadTrainer(GroupAdvantageMixin, GRPOTrainer):  # type: ignore[misc]
    """`GRPOTrainer` with dpad-fast's group advantage and checkpoints that are whole.

    Args:
        *args: as for `GRPOTrainer`.
        share_images: run the vision tower once per distinct image of a batch (see `share_vision`; on CPU).
        paired: sample the same completions on any number of processes (see `paired_sampling`).
        **kwargs: as for `GRPOTrainer`, and `advantage` as for `GroupAdvantageMixin`.
    """

    def __init__(self, *args: Any, share_images: bool = False, paired: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if share_images:
            for model in (self.model, self.ref_model):
                share_vision(model)
        self._sampled = (-1, 0)  # the step that was last sampled for, and how often
        if paired:
            pair_sampling(self.model, self._noise)

    def _noise(self, rows: int) -> PairedNoise:
        """The noise of one call of `generate` for this process's rows."""
        step = int(self.state.global_step)
        again = self._sampled[1] + 1 if self._sampled[0] == step else 0
        self._sampled = (step, again)
        first, of = self.accelerator.process_index * rows, self.accelerator.num_processes * rows
        return PairedNoise(self.args.seed, (step, again), first, of, self.args.temperature)

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As `GRPOTrainer.train`, from a checkpoint only if it is as it was written.

        Args:
            resume_from_checkpoint: a folder, or True for the last complete one in `output_dir`, the first step if
                there is none.
            *args: as for `GRPOTrainer`.
            **kwargs: as for `GRPOTrainer`.

        Returns:
            What `GRPOTrainer` returns.

        Raises:
            ValueError: for a folder that was sealed by this trainer and is damaged; names the file.
        """
        if resume_from_checkpoint is True:
            found = self.from_main(lambda: last_complete(Path(self.args.output_dir)))
            resume_from_checkpoint = None if found is None else str(found)
        elif resume_from_checkpoint:
            folder = Path(resume_from_checkpoint)
            wrong = self.from_main(lambda: damage(folder) if (folder / MARKER).exists() else None)
            if wrong is not None:
                raise ValueError(f"{folder} cannot be resumed: {wrong}")
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def from_main(self, make: Callable[[], Any]) -> Any:
        """The result of `make` on the main process, given to all processes: files are read and hashed once."""
        value = [make() if self.is_world_process_zero() else None]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(value)
        return value[0]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint to its end, seal it, and only then delete what is older."""
        step, keep = int(self.state.global_step), self.args.save_total_limit
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{step}"
        check_finite(self.model, f"step {step}")
        if self.args.should_save and folder.exists():  # of a run that was killed, or damaged: no file of it may stay
            shutil.rmtree(folder)
        self.accelerator.wait_for_everyone()
        self.args.save_total_limit = None  # the Trainer would delete before the marker is written
        try:
            with writing(folder):
                super()._save_checkpoint(model, trial)
                self.accelerator.wait_for_everyone()  # each process writes its random state
                if self.args.should_save and not self.args.save_only_model:
                    seal(folder, step)
        finally:
            self.args.save_total_limit = keep
        if self.args.should_save:
            prune(folder, keep, self.state.best_model_checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _only_plain_state(checkpoint, "optimizer.pt or scheduler.pt"):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        with _only_plain_state(checkpoint, "scaler.pt"):
            super()._load_scaler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with _only_plain_state(checkpoint, "rng_state.pth"):
            super()._load_rng_state(checkpoint)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load a checkpoint's weights by their names in memory; see `restore_weights`."""
        model = self.model if model is None else model
        if self.is_fsdp_enabled or not isinstance(model, PreTrainedModel):  # FSDP shards, PEFT adapters: not renamed
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        restore_weights(model, Path(resume_from_checkpoint))

    def _send_telemetry(self) -> None:
        """Training with this package tells nobody."""
