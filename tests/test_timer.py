"""A timer adds its laps up in the dictionary that it was given."""

from dpad_fast import timer as module
from dpad_fast.timer import Timer


def test_laps_follow_one_another_and_add_up(monkeypatch):
    clock = iter([10.0, 11.0, 13.0, 17.0])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    seconds = {"text": 5.0}
    timer = Timer(seconds)
    for stage in ("text", "image", "text"):
        timer.lap(stage)
    assert seconds == {"text": 10.0, "image": 2.0}
    assert timer.seconds is seconds
