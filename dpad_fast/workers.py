"""Worker processes that end with the process that started them.

They are spawned, not forked: a fork copies the calling thread alone, and a parallel loop of torch in the child waits
for threads that are not there.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from typing import Any

# How long an executor may take to end by itself once its processes are gone.
_OWN_END_S = 3.0


@contextmanager
def worker_pool(count: int, start: Callable[..., None] | None = None, *arguments: Any) -> Iterator[ProcessPoolExecutor]:
    """An executor of `count` processes.

    An error inside the `with` block, Ctrl-C too, terminates the processes, because nobody takes what they are making.

    Args:
        count: processes.
        start: called in each process before its first task; None: nothing is.
        arguments: of `start`. They are pickled, as tasks are.

    Yields:
        The executor.

    Raises:
        OSError: a process was ended from outside.
    """
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(count, context, initializer=_settle, initargs=(start, arguments))
    try:
        yield executor
    except BaseException as error:
        for process in [*(executor._processes or {}).values()]:
            process.terminate()
        _end_waits(executor)
        if isinstance(error, BrokenProcessPool):
            raise OSError(
                f"one of {count} worker processes was ended from outside (out of memory?); run the same command again, "
                "with fewer workers"
            ) from None
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def _end_waits(executor: ProcessPoolExecutor) -> None:
    """Ends the waits of the executor's threads for processes that are gone, where they do not end by themselves.

    One thread writes tasks to a pipe that nobody reads any more (Python 3.12 closes it itself, as do late releases of
    3.11: https://github.com/python/cpython/issues/94777). The other may read a result of which only a part was written;
    its end comes once nobody, this process included, can write the rest.
    """
    manager = getattr(executor, "_executor_manager_thread", None)
    if manager is not None:
        manager.join(_OWN_END_S)
        if not manager.is_alive():
            return  # it has closed the pipes; to close them beside it would be an error in either thread
    for queue, end in (("_call_queue", "_reader"), ("_result_queue", "_writer")):
        pipe = getattr(getattr(executor, queue, None), end, None)
        if pipe is not None:
            with suppress(OSError):  # on a busy machine it may be closing it just now
                pipe.close()


def _settle(start: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    """In a worker. Ctrl-C reaches every process of a terminal, and it is the parent that answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if start is not None:
        start(*arguments)


def _end_with_parent() -> None:
    """A worker waits for tasks on a pipe that it holds open itself, so that it would outlive a killed parent."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
