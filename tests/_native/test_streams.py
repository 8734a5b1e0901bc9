"""Work handed from one thread or stream to another: it begins behind what it reads, and runs where it was meant to."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from dpad_fast._native.streams import OwnStreams, callers_streams
from dpad_fast.testing.gpu import There, there

needs_gpu = pytest.mark.gpu


class Watched(There):
    """A tensor that notes the streams that its memory is lent to."""

    def record_stream(self, stream):
        stream.log.append(("lent", stream.name))


@pytest.fixture
def cuda(monkeypatch):
    """Two GPUs' streams, by thread; what happens to them is noted in `log`."""
    log, current = [], threading.local()

    class Stream:
        def __init__(self, device, name=None):
            self.device, self.log = torch.device(device), log
            self.name = name or f"own {self.device}"

        def record_event(self):
            log.append(("recorded", self.name))
            return f"event of {self.name}"

        def wait_event(self, event):
            log.append(("waits", self.name, event))

    defaults = [Stream(f"cuda:{i}", f"default {i}") for i in range(2)]

    def streams():
        if not hasattr(current, "streams"):
            current.streams, current.device = list(defaults), 0
        return current.streams

    def index(device):
        return device if isinstance(device, int) else torch.device(device).index

    @contextmanager
    def on(stream):
        place, before = stream.device.index, streams()[stream.device.index]
        device, current.device = current.device, place
        current.streams[place] = stream
        try:
            yield
        finally:
            current.streams[place], current.device = before, device

    def current_device():
        streams()
        return current.device

    for name, value in {
        "Stream": Stream,
        "stream": on,
        "current_stream": lambda device: streams()[index(device)],
        "default_stream": lambda device: defaults[index(device)],
        "is_initialized": lambda: True,
        "device_count": lambda: 2,
        "current_device": current_device,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return SimpleNamespace(log=log, Stream=Stream, on=on, names=lambda: [stream.name for stream in streams()])


def in_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join(60)
    return found[0]


def test_a_thread_works_on_the_streams_of_who_asked(cuda):
    with cuda.on(cuda.Stream("cuda:0", "mine")), cuda.on(cuda.Stream("cuda:1", "other")):
        streams = callers_streams()

    def work():
        with streams():
            return cuda.names(), torch.cuda.current_device()

    assert in_thread(cuda.names) == ["default 0", "default 1"]
    assert in_thread(work) == (["mine", "other"], 1)


def test_a_gpu_that_nobody_uses_is_not_opened(cuda):
    streams, entered = callers_streams(), []
    torch.cuda.stream, on = lambda stream: entered.append(stream.name) or on(stream), torch.cuda.stream
    try:
        with streams():
            assert entered == []  # where a thread begins anyway
    finally:
        torch.cuda.stream = on


def test_without_a_gpu_there_is_nothing_to_hand_on(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    with callers_streams()():
        pass
    with OwnStreams().beside([torch.ones(2), "text", None], torch.device("cpu"))():
        pass


def test_work_beside_a_caller_begins_when_its_pictures_are_there(cuda):
    own = OwnStreams()
    picture = there(torch.zeros(2, 2, 3, dtype=torch.uint8)).as_subclass(Watched)
    with cuda.on(cuda.Stream("cuda:0", "the trainer's")):
        entered = own.beside([picture, torch.ones(1)], torch.device("cuda", 1))
    assert cuda.log == [("recorded", "the trainer's")]  # before `beside` returned

    def work():
        with entered():
            return cuda.names()

    assert in_thread(work) == ["own cuda:0", "own cuda:1"]
    assert cuda.log[1:] == [("waits", "own cuda:0", "event of the trainer's"), ("lent", "own cuda:0")]
    # Without an input on a GPU it waits for nothing, and the streams are the same ones.
    cuda.log.clear()
    entered = own.beside([], torch.device("cuda", 0))
    assert in_thread(work) == ["own cuda:0", "default 1"]
    assert cuda.log == []


def test_scores_in_the_background_run_on_their_own_stream(cuda):
    import dpad_fast as df
    from dpad_fast.testing import rewards as shared

    encoder = df.ClipEncoder.from_transformers(*shared.tiny_clip())
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad"), encoder)
    used, run = [], encoder._forwards[True].images
    encoder._forwards[True].images = lambda *given: used.append(cuda.names()) or run(*given)
    begin = scorer._begin
    scorer._begin = lambda *given: used.append(cuda.names()) or begin(*given)
    encoder.device = torch.device("cuda", 1)
    encoder._way = None
    batch = [shared.completion()], [df.Target.parse(shared.SOLUTION)], [shared.picture()]
    scorer.score_async(*batch).result(60)
    assert used == [["default 0", "own cuda:1"]] * 2
    used.clear()
    scorer.score(*batch)
    assert used[0] == ["default 0", "default 1"]  # the caller's own


class Noting:
    """A scorer that notes the streams that it is called on."""

    config = None

    def __init__(self, names):
        self.names, self.used = names, []

    def score(self, texts, *_columns, on_error):
        self.used.append((len(texts), self.names()))
        raise ConnectionError("all that this test asks is answered")


def test_rows_that_arrive_one_by_one_are_scored_behind_what_fills_their_pictures(cuda):
    from dpad_fast import MicroBatcher

    scorer = Noting(cuda.names)
    with MicroBatcher(scorer, window_ms=50) as batcher:
        picture = there(torch.zeros(2, 2, 3, dtype=torch.uint8)).as_subclass(Watched)
        with cuda.on(cuda.Stream("cuda:0", "the trainer's")):
            rows = [batcher.submit("a", "b", image) for image in (picture, torch.ones(2, 2, 3), "picture.png")]
            assert cuda.log == [("recorded", "the trainer's")]
        for row in rows:
            assert isinstance(row.exception(60), ConnectionError)
        assert scorer.used == [(3, ["own cuda:0", "default 1"])]
        assert cuda.log[1:] == [("waits", "own cuda:0", "event of the trainer's"), ("lent", "own cuda:0")]
        assert isinstance(batcher.submit("a", "b", "picture.png").exception(60), ConnectionError)
        assert scorer.used[1] == (1, ["default 0", "default 1"])


def test_pictures_are_digested_and_read_on_the_callers_stream(cuda):
    import dpad_fast as df
    from dpad_fast.testing import rewards as shared

    encoder = df.ClipEncoder.from_transformers(*shared.tiny_clip(), threads=2)
    used = []

    class Source:
        new_pixels = 0

        def __init__(self, number):
            self.number = number

        @property
        def key(self):
            used.append(cuda.names())
            return self.number

        def pixels(self):
            used.append(cuda.names())
            return torch.full((40, 50, 3), self.number, dtype=torch.uint8)

    with cuda.on(cuda.Stream("cuda:0", "mine")):
        encoder.embed_regions([Source(1), Source(2)], [(0, None), (1, None)])
    assert used == [["mine", "default 1"]] * 4


@needs_gpu
def test_a_copy_from_a_late_stream_waits_for_it_on_a_gpu():
    late = torch.cuda.Stream()
    expected = torch.arange(1 << 20, dtype=torch.float32)
    with torch.cuda.stream(late):
        torch.cuda._sleep(100_000_000)
        values = expected.to("cuda", non_blocking=True) + 1
        entered = OwnStreams().beside([values], torch.device("cuda"))

    def work():
        with entered():
            return (values * 2).cpu()

    assert torch.equal(in_thread(work), (expected + 1) * 2)
