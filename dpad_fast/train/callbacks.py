"""Callbacks between the steps of a run: pass log lines on, write TensorBoard files, and save at the end."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback


class LogWatcher(TrainerCallback):  # type: ignore[misc]
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


def tensorboard(folder: Path) -> TrainerCallback:
    """A callback that writes every metric as a TensorBoard scalar.

    Args:
        folder: for the event files; a resumed run goes on in the same one.

    Returns:
        The callback. Where the files cannot be written, as on a full disk, it warns once, and the run goes on.
    """
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    return UnlessItFails(lambda: TensorBoardCallback(tb_writer=SummaryWriter(log_dir=str(folder))), str(folder))


class UnlessItFails(TrainerCallback):  # type: ignore[misc]
    """Pass a run's beginning, log lines and end on to a callback that writes files, until these cannot be written.

    Args:
        make: makes the callback, which may fail already.
        what: what the warning calls it.
    """

    def __init__(self, make: Callable[[], Any], what: str) -> None:
        self._what = what
        self._callback: Any = None
        self._report = threading.excepthook
        threading.excepthook = self._thread_failed
        self._callback = self._unless_it_fails(make)

    def _thread_failed(self, failed: threading.ExceptHookArgs) -> None:
        """TensorBoard's writing thread hands its error to the next call here and raises it once more."""
        if not (type(failed.thread).__module__.startswith("tensorboard.") and isinstance(failed.exc_value, OSError)):
            self._report(failed)

    def _unless_it_fails(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except OSError as error:
            self._callback = None
            warnings.warn(f"{self._what}: nothing more is written: {error.strerror or error}", stacklevel=2)
            return None

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Called by the trainer before the first step; the arguments are passed on, as below."""
        if self._callback is not None:
            self._unless_it_fails(lambda: self._callback.on_train_begin(args, state, control, **others))

    def on_log(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Called by the trainer after it has logged."""
        if self._callback is not None:
            self._unless_it_fails(lambda: self._callback.on_log(args, state, control, **others))

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Called by the trainer after the last step."""
        if self._callback is not None:
            self._unless_it_fails(lambda: self._callback.on_train_end(args, state, control, **others))
        if threading.excepthook == self._thread_failed:
            threading.excepthook = self._report


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
