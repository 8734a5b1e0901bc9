"""Pinned memory that uploads take in turns: no copy on its way is overwritten, and what is not needed is given back."""

from __future__ import annotations

import threading
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpad_fast._native import arena as module
from dpad_fast._native.arena import PinnedArena
from dpad_fast.testing.gpu import PretendedGpu, Stream, here

MEGABYTE = 1 << 20


def send(arena: PinnedArena, gpu: PretendedGpu, stream: Stream, size: int, value: int) -> torch.Tensor:
    """What is on the GPU once the stream has run."""
    with arena.block(size) as block, gpu.on(stream):
        assert len(block.memory) >= size
        block.memory[:size] = value
        there = gpu.empty(size)
        gpu.copy(there, block.memory[:size])
        block.copied = gpu.record(stream)
    return here(there)


@given(
    st.lists(st.one_of(st.integers(1, 5000), st.none()), max_size=40),
    st.sampled_from([256, 4096, 1 << 14]),
    st.integers(1, 3),
)
def test_every_copy_gets_what_was_put_there_for_it(steps: list[int | None], limit: int, streams: int) -> None:
    """Sizes of uploads, and in between (None) a stream that gets one copy further."""
    with mock.patch.object(module, "_SMALLEST", 64):
        gpu = PretendedGpu()
        arena, several = PinnedArena(gpu, limit), [gpu.stream() for _ in range(streams)]
        sent = []
        for number, size in enumerate(steps):
            stream = several[number % streams]
            if size is None:
                stream.run(min(stream.done + 1, len(stream.queue)))
                continue
            sent.append((send(arena, gpu, stream, size, number + 1), number + 1))
            assert arena.held <= limit
        for stream in several:
            stream.run(len(stream.queue))
        for found, value in sent:
            assert bool((found == value).all())
        if sum(max(128, 2 * size) for size in steps if size is not None) <= limit:
            assert gpu.waits == 0


def test_a_block_is_used_again_once_its_copy_is_done() -> None:
    gpu = PretendedGpu()
    arena, stream = PinnedArena(gpu), gpu.stream()
    for _ in range(5):
        send(arena, gpu, stream, 3 * MEGABYTE, 1)
        stream.run(len(stream.queue))
    assert gpu.log.count(("pinned", 4 * MEGABYTE)) == 1
    send(arena, gpu, stream, 3 * MEGABYTE, 1)
    send(arena, gpu, stream, 2 * MEGABYTE, 2)  # the first one's copy is on its way
    assert [entry for entry in gpu.log if entry[0] == "pinned"] == [("pinned", 4 * MEGABYTE), ("pinned", 2 * MEGABYTE)]
    assert gpu.waits == 0


def test_a_block_much_larger_than_what_is_needed_is_given_back() -> None:
    gpu = PretendedGpu()
    arena, stream = PinnedArena(gpu), gpu.stream()
    send(arena, gpu, stream, 60 * MEGABYTE, 1)
    for number in range(20):
        stream.run(len(stream.queue))
        assert arena.held == (64 * MEGABYTE if number < 16 else 0 if number == 16 else MEGABYTE)
        send(arena, gpu, stream, MEGABYTE, 2)


def test_what_is_beyond_the_limit_is_not_kept() -> None:
    gpu = PretendedGpu()
    arena, stream = PinnedArena(gpu, 4 * MEGABYTE), gpu.stream()
    first = send(arena, gpu, stream, 6 * MEGABYTE, 3)
    assert arena.held == 0
    for value in (4, 5, 6):
        send(arena, gpu, stream, 2 * MEGABYTE, value)
    assert arena.held <= 4 * MEGABYTE
    assert gpu.waits == 1  # for the copy that was queued first
    stream.run(len(stream.queue))
    assert bool((first == 3).all())


def test_an_error_while_it_is_filled_leaves_the_block_free() -> None:
    gpu = PretendedGpu()
    arena = PinnedArena(gpu)
    with pytest.raises(KeyError), arena.block(10):
        raise KeyError
    assert arena.held == MEGABYTE
    send(arena, gpu, gpu.stream(), 10, 1)
    assert gpu.log.count(("pinned", MEGABYTE)) == 1


def test_threads_never_share_a_block() -> None:
    gpu, wrong = PretendedGpu(), []
    arena = PinnedArena(gpu)
    begin = threading.Barrier(4)

    def fill(value: int) -> None:
        begin.wait(60)
        for _ in range(50):
            with arena.block(1000) as block:
                block.memory[:1000] = value
                wrong.extend([value] * int((block.memory[:1000] != value).any()))

    threads = [threading.Thread(target=fill, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert arena.held <= 4 * MEGABYTE
