"""The processes of one distributed run: which is the main one, and how they agree.

`accelerate launch` and `torchrun` start every process with the same command and tell them apart by environment
variables. The main process alone writes files; the others wait for what it found or did.
"""

from __future__ import annotations

import atexit
import datetime
import os
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_PATIENCE = datetime.timedelta(hours=12)  # a measurement of a large policy takes hours


def count() -> int:
    """How many processes share the run; 1 where nothing launched it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's number among them, 0 for the main one."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


def join(cpu: bool) -> None:
    """Connect the processes of a run; without a launcher, or when they are connected, nothing happens.

    Args:
        cpu: whether they compute on the CPU (and talk by gloo).

    Raises:
        ValueError: if the launcher's variables are not there in full.
    """
    if count() == 1:
        return
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ValueError(f"WORLD_SIZE is {count()}, but {', '.join(missing)} is not set: start with accelerate launch")
    from accelerate import PartialState

    PartialState(cpu=cpu, timeout=_PATIENCE)
    atexit.register(_leave)


def _leave() -> None:
    """Close the connection, for gloo's threads would end the process with an abort when the interpreter goes down."""
    import torch.distributed as group

    if group.is_available() and group.is_initialized():
        group.destroy_process_group()


def from_main(make: Callable[[], T]) -> T:
    """The result of `make` on the main process, given to all processes. Its error is raised on all of them.

    Args:
        make: is called on the main process alone; what it returns must be picklable where there are several.

    Returns:
        The main process's value.

    Raises:
        ValueError, OSError: what `make` raised.
    """
    if count() == 1:
        return make()
    from accelerate.utils import broadcast_object_list

    outcome: list[tuple[T | None, Exception | None]] = [(None, None)]
    if is_main():
        try:
            outcome[0] = (make(), None)
        except (ValueError, OSError) as error:  # a user's mistake, or a full disk: no process is left waiting
            outcome[0] = (None, error)
    broadcast_object_list(outcome)
    value, wrong = outcome[0]
    if wrong is not None:
        raise wrong
    return value  # type: ignore[return-value]


def gather(rows: list[T]) -> list[T]:
    """The rows of all processes, in the order of their ranks, on all of them.

    Args:
        rows: this process's, picklable.

    Returns:
        All rows.
    """
    if count() == 1:
        return rows
    from accelerate.utils import gather_object

    gathered: list[T] = gather_object(rows)
    return gathered
