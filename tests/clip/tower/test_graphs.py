"""Graphs over padded sizes: sizes, capture, memory, turns, streams and errors, with torch's CUDA calls replaced."""

import os
import threading
import weakref
from itertools import pairwise

import pytest
import torch

from dpad_fast.clip.tower import graphs
from dpad_fast.clip.tower.graphs import CudaRecorder, Graphs, ladder
from dpad_fast.testing.graphs import Again, Streams

CPU = torch.device("cpu")


def test_sizes_are_few_and_near():
    assert ladder(4, 40) == (4, 8, 16, 20, 24, 28, 32, 40)
    assert ladder(128, 16384)[:8] == (128, 256, 512, 640, 768, 896, 1024, 1280)
    assert len(ladder(128, 16384)) == 23
    for first, most in ((1, 1), (4, 3), (4, 327), (128, 77), (128, 128), (128, 5000), (128, 16384)):
        sizes = ladder(first, most)
        assert sizes == tuple(sorted(set(sizes)))
        assert sizes[-1] == most  # a text as long as that is promised room
        near = [b / a for a, b in pairwise(sizes)]
        assert all(ratio <= (1.25 if a >= 4 * first else 2) for a, ratio in zip(sizes, near, strict=False))


def doubling(recorder, sizes=(4, 8, 16, 20, 24, 28, 32, 40), seen=None):
    """Graphs of 2x of int64 [size], each value as a row."""

    def run_of(size, static):
        def run():
            if seen is not None:
                seen.append(static.tolist())
            return 2.0 * static[:, None]

        return run

    return Graphs(run_of, recorder, sizes, lambda size: size, torch.int64)


def ask(graphs, values):
    return graphs(len(values), lambda size, static: static[: len(values)].copy_(torch.tensor(values)), len(values))


def test_a_size_is_captured_once_after_the_largest_of_its_octave():
    recorder = Again()
    graphs = doubling(recorder)
    assert ask(graphs, [1, 2, 3]).flatten().tolist() == [2, 4, 6]
    assert (recorder.captures, recorder.replays) == (1, 1)
    for count in (1, 4, 2):
        ask(graphs, [7] * count)
    assert (recorder.captures, recorder.replays, recorder.memory_taken) == (1, 4, 4)
    ask(graphs, [7] * 17)  # 20, after 32
    assert (recorder.captures, recorder.memory_taken) == (3, 4 + 32)
    for count in (20, 21, 28, 29, 32):
        ask(graphs, [7] * count)
    assert (recorder.captures, recorder.memory_taken) == (5, 4 + 32)  # 24 and 28, in the memory of 32
    ask(graphs, [7] * 33)  # the last octave ends at 40
    assert (recorder.captures, recorder.replays, recorder.memory_taken) == (6, 11, 4 + 32 + 40)


def test_results_survive_the_next_replay():
    graphs = doubling(Again())
    kept = [(values, ask(graphs, values)) for values in ([1], [2, 3], [4] * 20, [5] * 30, [6], [7] * 20)]
    for values, found in kept:
        assert found.tolist() == [[2.0 * value] for value in values]


def test_the_warm_up_sees_the_work_and_not_what_another_size_left():
    seen = []
    graphs = doubling(Again(), seen=seen)
    ask(graphs, [9] * 32)
    del seen[:]
    ask(graphs, [1] * 17)
    assert seen[0][:17] == [1] * 17


def test_an_error_of_the_capture_is_raised_and_nothing_is_kept():
    class Fails(Again):
        def record(self, run):
            if self.captures == 0:
                self.captures += 1
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return super().record(run)

    recorder = Fails()
    graphs = doubling(recorder)
    with pytest.raises(torch.cuda.OutOfMemoryError, match="out of memory"):
        ask(graphs, [1, 2])
    assert recorder.replays == 0
    assert ask(graphs, [1, 2]).flatten().tolist() == [2, 4]  # the lock is free, and the capture is made again


def test_threads_take_turns():
    graphs, wrong = doubling(Again()), []

    def ask_often(value):
        for count in (1, 3, 17, 30, 4):
            if ask(graphs, [value] * count).tolist() != [[2.0 * value]] * count:
                wrong.append((value, count))

    threads = [threading.Thread(target=ask_often, args=(value,)) for value in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


class Late:
    """A result on a GPU: a copy of it is made when the streams come to it."""

    def __init__(self, streams):
        self.streams, self.value = streams, None

    def __getitem__(self, rows):
        return self

    def clone(self):
        copy = Late(self.streams)
        self.streams.launch(lambda: setattr(copy, "value", self.value))
        return copy


def late_graphs(streams, recorder):
    """Graphs of 10x, where input, run and copy are done late."""

    def run_of(size, static):
        out = Late(streams)

        def run():
            streams.launch(lambda: setattr(out, "value", 10 * int(static[0])))
            return out

        return run

    return Graphs(run_of, recorder, (4,), lambda size: size, torch.int64)


def many_streams(streams, recorder, seed):
    graphs, found = late_graphs(streams, recorder), []
    for i in range(9):
        streams.current = f"caller {i % 3}"
        fill = lambda size, static, i=i: streams.launch(lambda: static.fill_(i))  # noqa: E731
        found.append(graphs(1, fill, 1))
    with torch.inference_mode():  # as the static input was made
        streams.finish(seed)
    return [copy.value for copy in found]


@pytest.mark.parametrize("seed", range(20))
def test_streams_follow_each_other(monkeypatch, seed):
    streams = Streams()
    streams.replace(monkeypatch)
    assert many_streams(streams, CudaRecorder(CPU), seed) == [10 * i for i in range(9)]


def test_without_the_event_they_do_not(monkeypatch):
    wrong = 0
    for seed in range(20):
        streams = Streams()
        streams.replace(monkeypatch)
        recorder = CudaRecorder(CPU)
        recorder._done.record = lambda stream: None
        wrong += many_streams(streams, recorder, seed) != [10 * i for i in range(9)]
    assert wrong > 10  # so the test above can fail


def test_capture_as_torch_asks(monkeypatch):
    streams, runs = Streams(), []
    streams.replace(monkeypatch)
    recorder = CudaRecorder(CPU)

    def run():
        runs.append((streams.current, streams.capturing is not None))
        return torch.zeros(1)

    with recorder.using():
        recorder.record(run)
        recorder.record(run)
    warm_up, captures = recorder._warm_up.name, recorder._stream.name
    assert warm_up != captures
    assert runs == 2 * [(warm_up, False), (warm_up, False), (captures, True)]
    graphs = [entry for entry in streams.log if isinstance(entry, tuple) and entry[0] == "graph"]
    assert graphs == 2 * [("graph", "pool", captures, "thread_local")]
    assert ("device", CPU) in streams.log
    assert streams.current == "default"
    streams.finish(0)


def test_a_capture_that_fails_leaves_stream_and_lock(monkeypatch):
    streams = Streams()
    streams.replace(monkeypatch)
    recorder = CudaRecorder(CPU)

    def run():
        # torch waits for the whole device as a capture begins, which another capture there does not survive.
        assert graphs._one_capture.locked() == (streams.capturing is not None)
        if streams.capturing is not None:
            raise RuntimeError("operation not permitted when stream is capturing")
        return torch.zeros(1)

    for _ in range(2):
        with pytest.raises(RuntimeError, match="not permitted when stream is capturing"), recorder.using():
            recorder.record(run)
        assert streams.current == "default"
    streams.finish(0)


def test_a_forked_process_is_refused_even_where_the_lock_is_held(monkeypatch):
    streams = Streams()
    streams.replace(monkeypatch)
    recorder = CudaRecorder(CPU)
    with recorder.using():
        real = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: real + 1)
        with pytest.raises(RuntimeError, match="before this process was forked"), recorder.using():
            raise AssertionError("not reached")


def test_memory_is_ready_for_the_caller(monkeypatch):
    streams = Streams()
    streams.replace(monkeypatch)
    recorder = CudaRecorder(CPU)
    found = recorder.memory(5, torch.int64)
    assert found.tolist() == [0] * 5
    assert [kind for kind, _ in streams._queues["default"]] == ["wait"]
    assert [kind for kind, _ in streams._queues[recorder._stream.name]] == ["record"]


def test_recorders_that_live_share_no_stream(monkeypatch):
    streams = Streams(side_streams=7)
    streams.replace(monkeypatch)
    monkeypatch.setattr("dpad_fast.clip.tower.graphs._live", weakref.WeakSet())
    recorders = [CudaRecorder(CPU) for _ in range(2)]
    for _ in range(4):
        recorders[0] = CudaRecorder(CPU)
        names = [stream.name for it in recorders for stream in (it._warm_up, it._stream)]
        assert len(set(names)) == 4
        assert all(name.startswith("first") for name in names)  # nor is it one that others get
