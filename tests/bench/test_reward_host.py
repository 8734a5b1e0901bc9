"""`bench.reward --host`, rehearsed with a tiny model: the code of a GPU's step with ready numbers; timed turns."""

from __future__ import annotations

import csv
import gc
import time
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
pytest.importorskip("open_clip")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("torchvision")  # of transformers' fast processor
    monkeypatch.syspath_prepend(str(ROOT))
    from bench.reward import host

    return host


SMALL = ["--host", "--tiny", "--queries", "2", "--threads", "1"]


def test_every_contestant_has_a_row(host: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bench import tables
    from bench.reward import __main__ as door

    assert door.main([*SMALL, "--runs", "2", "--again", "3", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "host only, no launch, no tower; not a time on a GPU" in said
    assert "\u2026" not in said  # nothing of the table is cut, least of all a number
    with (tmp_path / "reward-host.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    forms = ["PIL", "JPEG bytes", "images known"]
    names = [(name, form) for name in ("dpad_fast float32", "dpad_fast guarded", "transformers") for form in forms]
    assert [(row["contestant"], row["pictures"]) for row in rows] == names
    for row in rows:
        assert 0 < float(row["least_ms"]) <= float(row["p50_ms"]) <= float(row["most_ms"]), row
        assert row["recomputed"] == ("3" if "guarded" in row["contestant"] else ""), row
        assert (row["turns"], row["threads"], row["driver"]) == ("2", "1", ""), row
        assert float(row["text_ms"]) > 0, row
        for key in ("ms_of_hand_written", "process_ms_of_hand_written"):
            assert (float(row[key]) == 1) == (row["contestant"] == "transformers"), row
    shown = tables.rewritten("<!-- table: reward-host -->\n<!-- /table -->", tmp_path)
    assert shown.count("\n| ") == 1 + 1 + len(rows) - 1 + 1
    assert "| **dpad_fast guarded** | images known |" in shown
    assert "not a time on a GPU" in shown


def test_nothing_is_written_that_was_not_asked_for(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.reward import __main__ as door

    found: list[Any] = []
    monkeypatch.setattr(host, "run", lambda args, console: found.append(args) or 0)
    assert door.main(SMALL) == 0
    assert (found[0].out, found[0].runs, found[0].again) == ("", None, 7)


def test_what_cannot_be_looked_at_again_is_refused(host: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from bench.reward import __main__ as door

    with pytest.raises(SystemExit) as ended:
        door.main([*SMALL, "--again", "17"])
    assert ended.value.code == 2
    assert "--again: a step has 16 completions, got 17" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--device", "cpu"], ["--device", "cuda"], ["--only", "dpad"], ["--seconds", "0"]])
def test_what_it_does_not_heed_is_refused(host: Any, option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from bench.reward import __main__ as door

    with pytest.raises(SystemExit) as ended:
        door.main([*SMALL, *option])
    assert ended.value.code == 2
    assert "--device, --only and --seconds do not go with --host" in capsys.readouterr().err


@pytest.mark.parametrize("known", [False, True])
def test_a_step_is_a_gpus_own(host: Any, monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    """Captions are packed for graphs, pictures are staged, crops are planned, and guarded looks again."""
    from bench.reward import work as ways
    from dpad_fast.clip.tower import captured, fixed
    from dpad_fast.kernels import _crop_plan

    calls: list[tuple[str, int]] = []

    def noted(module: Any, name: str, size: Any) -> None:
        real = getattr(module, name)

        def call(*args: Any, **options: Any) -> Any:
            calls.append((name, size(*args)))
            return real(*args, **options)

        monkeypatch.setattr(module, name, call)

    clip = host.few_layers(tiny=True)
    encoder = host.host_encoder(clip, "guarded", 3)
    contestant = host.Contestant(encoder, known)
    work = host.work_of(True)([ways.photograph(i) for i in range(2)], 16, seed=5)
    pixels = 3 * ways.WIDTH * ways.HEIGHT
    with host.by_the_plan():
        contestant.prepare(work)
        noted(captured, "pack_texts", lambda rows, *_: len(rows))
        for tables in (fixed.Bins, fixed.VariableLengths):
            noted(tables, "need", lambda tables, packed: packed.count)
        noted(_crop_plan, "prepare", lambda images, boxes, index: len(boxes))
        noted(host.IdleGpu, "copy", lambda gpu, there, pinned: pinned.numel())
        noted(host.IdleGpu, "to_host", lambda gpu, tensor: 1)
        noted(host.ReadyForward, "images", lambda forward, given, threads: len(given))
        batch = contestant(work)
    first = [("pack_texts", 16), ("need", 16)]
    again = [("pack_texts", 3), ("need", 3)]
    # The second look's regions: of the pictures that the three near captions are about.
    looked = [(name, count) for name, count in calls if name != "images"]
    if known:
        assert calls == [*first, ("to_host", 1), *again, ("to_host", 1)]
    else:
        up = [("prepare", 4), ("copy", 2 * pixels)]
        assert [one for one in looked if one[0] in ("prepare", "copy")] == up[::-1]
        assert [one for one in looked if one[0] not in ("prepare", "copy")] == [
            *first, ("to_host", 1), *again, ("to_host", 1), ("to_host", 1),
        ]  # fmt: skip
        images = [count for name, count in calls if name == "images"]
        assert images[0] == 4
        assert images[1:] in ([2], [4])
    assert contestant.scorer.recomputed == 3
    distances = (batch.similarity["roi"] - batch.similarity["aoi"]).abs()
    assert sorted(distances.tolist()) == [0.0] * 3 + [2.0] * 13


def test_crops_are_the_ops_own_again(host: Any) -> None:
    from dpad_fast import ops

    picture = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
    expected = ops.roi_clip_preprocess([picture], [(1, 2, 30, 33)], size=8)
    with host.by_the_plan():
        pass
    torch.testing.assert_close(ops.roi_clip_preprocess([picture], [(1, 2, 30, 33)], size=8), expected, rtol=0, atol=0)


# --- turns ---


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    from bench.reward import turns

    return turns


def test_a_turn_says_where_its_time_went(turns: Any) -> None:
    asleep = turns.measured(lambda: time.sleep(0.05), lambda: None)
    assert asleep.ms >= 50
    assert asleep.thread_ms < 0.5 * asleep.ms  # no processor worked for it
    assert asleep.collections == 0

    def works() -> None:
        until = time.thread_time() + 0.02
        while time.thread_time() < until:
            pass

    assert turns.measured(works, lambda: None).thread_ms >= 20


def test_a_collection_of_all_generations_is_counted(turns: Any) -> None:
    def collects() -> None:
        gc.collect(0)
        gc.collect(2)

    assert turns.measured(collects, lambda: None).collections == 1
    with turns.counted_collections() as found:
        gc.collect()
    gc.collect()
    assert len(found) == 1  # and none afterwards


def test_turns_as_columns(turns: Any) -> None:
    def turn(ms: float, collections: int = 0) -> Any:
        return turns.Turn(ms, ms / 2, ms * 2, collections)

    found = turns.columns([turn(10.0), turn(40.0, 2), turn(20.0, 1)])
    assert found == {
        "p50_ms": "20.00", "least_ms": "10.00", "most_ms": "40.00", "turns": 3, "thread_ms": "10.00",
        "process_ms": "40.00", "collections": 2,
    }  # fmt: skip
    assert turns.columns([]) == dict.fromkeys(turns.COLUMNS, "") | {"turns": 0}
    assert str(turn(40.0, 2)) == "40.0 (20.0)**"
    assert turn(1.0, 1).times(8) == turn(8.0, 1)


def test_ratios_are_turn_by_turn(turns: Any) -> None:
    def of(*times: float) -> list[Any]:
        return [turns.Turn(ms, ms, ms, 0) for ms in times]

    # The machine is twice as slow in the second half: ours is half of theirs in all.
    assert turns.ratio(of(10, 10, 20, 20), of(20, 20, 40, 40)) == (0.5, 0.5, 0.5)
    assert turns.ratio(of(1, 2, 3, 4), of(4, 4, 4, 4)) == (0.5, 0.625, 0.75)
    assert turns.ratio(of(1, 2), of(2)) == (0.5, 0.5, 0.5)
    assert turns.ratio(of(), of(2)) is None
    assert turns.ratio([turns.Turn(9, 1, 2, 0)], [turns.Turn(3, 2, 8, 0)], "process_ms") == (0.25, 0.25, 0.25)
