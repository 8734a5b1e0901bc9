"""What happens between the steps of a run: tell whoever watches, and save at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback


class Watcher(TrainerCallback):  # type: ignore[misc]
    """Pass every log line on as (step, metrics).

    Args:
        watch: called after every logged step, or None.
    """

    def __init__(self, watch: Callable[[int, Mapping[str, float]], None] | None) -> None:
        self._watch = watch

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **others: Any) -> None:
        """Called by the trainer after it has logged.

        Args:
            args: unused.
            state: its `global_step` is passed on.
            control: unused.
            logs: the metrics; lines without a reward (the closing summary) are left out.
            **others: unused.
        """
        if self._watch is not None and logs and "reward" in logs:
            numbers = {key: float(value) for key, value in logs.items() if isinstance(value, (int, float))}
            self._watch(int(state.global_step), numbers)


def tensorboard(folder: Path) -> Any:
    """A callback that writes every metric as a TensorBoard scalar.

    Args:
        folder: for the event files; a resumed run goes on in the same one.

    Returns:
        The callback.
    """
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    return TensorBoardCallback(tb_writer=SummaryWriter(log_dir=str(folder)))


class SaveAtEnd(TrainerCallback):  # type: ignore[misc]
    """Save a checkpoint after the last step, whatever the interval, so that a kill after training loses nothing."""

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> Any:
        """Called by the trainer after every step.

        Args:
            args: unused.
            state: tells the step and the number of steps.
            control: its `should_save` is set at the end.
            **others: unused.

        Returns:
            The control object.
        """
        if state.global_step >= state.max_steps:
            control.should_save = True
        return control
