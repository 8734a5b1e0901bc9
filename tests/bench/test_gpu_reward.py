"""`bench.reward --device`, rehearsed on the CPU with a tiny model: compares, times, writes a row per contestant."""

from __future__ import annotations

import csv
import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.autograd import DeviceType

ROOT = Path(__file__).parents[2]
pytest.importorskip("open_clip")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The modules of `bench.reward`, and the tiny model."""
    pytest.importorskip("torchvision")  # of transformers' fast processor
    monkeypatch.syspath_prepend(str(ROOT))
    from bench.reward import gpu_ways
    from bench.reward import work as ways

    return SimpleNamespace(clip=gpu_ways.Clip(*ways.make_tiny()), ways=ways, gpu_ways=gpu_ways)


def run(out: Path, *options: str) -> tuple[int, list[dict[str, str]]]:
    from bench.reward import __main__ as door

    small = ["--tiny", "--queries", "1", "--runs", "1", "--threads", "1", "--sample", "2", "--out", str(out)]
    status = door.main(["--device", "cpu", *small, *options])
    with (out / "reward-gpu.csv").open(newline="") as file:
        return status, list(csv.DictReader(file))


def test_every_contestant_is_compared_and_timed(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dpad_fast.clip.encoder import PRECISIONS

    status, rows = run(tmp_path)
    printed = capsys.readouterr().out
    assert (status, "decisions agree" in printed) == (0, True), printed
    forms = ("PIL", "JPEG bytes", "images known")
    names = {(row["contestant"], row["pictures"]) for row in rows}
    assert {(f"dpad_fast {precision}", form) for precision in PRECISIONS for form in forms} <= names
    assert {(f"open_clip, {dtype}", form) for dtype in ("float32", "float16") for form in forms} <= names
    for dtype in ("float32", "float16", "bfloat16"):
        assert {(f"transformers, {dtype}, GPU pixels", form) for form in forms} <= names
        assert (f"transformers, {dtype}, CPU pixels", "PIL") in names
    assert ("one at a time, float32", "PIL") in names
    for row in rows:
        assert float(row["p50_ms"]) > 0, row
        assert row["wrong"] != "", row
        # The same weights, whoever multiplies; the pixels of the peers differ by levels, open_clip's by where it cuts.
        if "float32" in row["contestant"]:
            same = row["contestant"].startswith(("dpad_fast", "one at a time"))
            assert float(row["error"]) < (1e-5 if same else 0.1), row
        if not row["contestant"].startswith("one at a time"):
            stages = {stage: float(row[f"{stage}_ms"]) for stage in ("preprocess", "text", "image", "combine")}
            assert stages["text"] > 0, row
            assert (stages["image"] == 0) == (row["pictures"] == "images known"), row
    outcome = importlib.import_module("bench.gpu.outcome")
    for asked in outcome.rows_in(outcome.PREDICTION):
        if asked["table"] == "reward-gpu":
            assert (asked["name"], asked["where"]) in names
            assert asked["column"] in rows[0]
    # The goals' contestants took turns with each other, and guarded once more with all others.
    grouped = {(row["contestant"], row["pictures"], row["group"]) for row in rows}
    assert len(grouped) == len(rows)
    goals = {(name, form) for name, form, group in grouped if group == "goals"}
    hand = "transformers, float16, GPU pixels"
    assert goals == {(name, form) for name, form in names if name.startswith("dpad_fast") or name == hand}
    others = {(name, form) for name, form, group in grouped if group == "others"}
    assert others == names - goals | {("dpad_fast guarded", form) for form in forms}
    for form in forms:
        assert f"ratio: dpad_fast guarded of {hand}, {form}: " in printed
        assert f"turns: dpad_fast guarded ({form}): " in printed
    for row in rows:
        assert 0 < float(row["thread_ms"]) <= float(row["process_ms"]) * 1.1, row
        assert int(row["collections"]) <= int(row["turns"]) == 1, row
    guarded = [row for row in rows if row["contestant"] == "dpad_fast guarded"]
    assert all(row["wrong"] == "0" for row in guarded)
    assert all(row["recomputed"].endswith(" of 8") or row["margin"] == "" for row in guarded)


def test_what_the_goals_are_about_is_safe_before_the_others_are_made(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(tiny.gpu_ways, "OnOpenClip", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "--only", "dpad_fast guarded,transformers float16,open_clip")
    with (tmp_path / "reward-gpu.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["contestant"], row["group"], row["turns"]) for row in rows] == [
        *[("dpad_fast guarded", "goals", "1")] * 3, *[("transformers, float16, GPU pixels", "goals", "1")] * 3,
    ]  # fmt: skip
    assert all(float(row["p50_ms"]) > 0 and row["error"] for row in rows)


def test_each_group_has_time_of_its_own(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The goals' turns end at 65 % of the time, the others' at all of it."""
    from bench.reward import gpu

    asked: list[tuple[str, float]] = []
    monkeypatch.setattr(gpu.time, "perf_counter", lambda: 1000.0)
    monkeypatch.setattr(
        gpu, "take_turns", lambda entrants, course, deadline: asked.append((entrants[-1].entry.name, deadline))
    )
    monkeypatch.setattr(gpu, "look_inside", lambda *args: None)
    run(tmp_path, "--seconds", "100", "--only", "dpad_fast guarded,open_clip float32")
    assert asked == [("dpad_fast guarded", 1065.0), ("open_clip, float32", 1100.0)]
    asked.clear()
    run(tmp_path, "--seconds", "100", "--only", "dpad_fast guarded")
    assert asked == [("dpad_fast guarded", 1100.0)]  # alone: nobody else needs time


def test_a_contestant_that_fails_is_a_row(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def out_of_memory(*args: Any, **options: Any) -> Any:
        raise RuntimeError("CUDA out of memory\nby so much")

    monkeypatch.setattr(tiny.gpu_ways, "OnOpenClip", out_of_memory)
    monkeypatch.setattr(tiny.gpu_ways.OneAtATime, "__call__", out_of_memory)
    status, rows = run(tmp_path, "--only", "open_clip,one at a time,transformers float32")
    assert status == 1
    failed = {row["contestant"]: row for row in rows if "out of memory" in row["note"]}
    assert set(failed) == {"open_clip float32", "open_clip float16", "one at a time, float32"}
    assert {row["p50_ms"] for row in failed.values()} == {""}
    assert len(rows) == 3 + 4
    assert all(float(row["p50_ms"]) > 0 for row in rows if row["contestant"] not in failed)
    assert "failed: one at a time, float32 (PIL): RuntimeError: CUDA out of memory" in capsys.readouterr().out


def test_what_was_timed_is_safe_before_anything_is_profiled(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.reward import gpu

    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu, "look_inside", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "--only", "transformers float32")
    with (tmp_path / "reward-gpu.csv").open(newline="") as file:
        assert [float(row["p50_ms"]) > 0 for row in csv.DictReader(file)] == [True] * 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--device", "cpu", "--only", "dpad_fast guarded,typo"], "--only: no name begins with 'typo'; there are dpad"),
        (["--device", "foo"], "argument --device: invalid choice: 'foo'"),
        (["--equality", "0"], "argument --equality: must be a whole number, at least 1, got '0'"),
        (["--memory", "0"], "argument --memory: must be a whole number, at least 1, got '0'"),
        (["--device", "cpu", "--queries", "-1"], "argument --queries: must be a whole number, at least 1, got '-1'"),
        (["--device", "cpu", "--runs", "x"], "argument --runs: must be a whole number, at least 1, got 'x'"),
    ],
)
def test_what_was_mistyped_is_named(
    options: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from bench.reward import __main__ as door

    with pytest.raises(SystemExit) as ended:
        door.main(options)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_only_a_whole_run_on_a_gpu_goes_to_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from bench import results
    from bench.reward import __main__ as door
    from bench.reward import gpu, race

    def out(*options: str) -> str:
        found: list[str] = []
        for module in (gpu, race):
            monkeypatch.setattr(module, "race", lambda args, console: found.append(args.out) or 0)
        assert door.main(list(options)) == 0
        return found[0]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for part in (["--device", "cpu"], ["--device", "cuda", "--tiny"], ["--device", "cuda", "--only", "open_clip"]):
        assert out(*part) == ""
        assert out(*part, "--out", "there") == "there"
    assert out() == out("--device", "cuda") == str(results.FOLDER)


def test_a_wrong_decision_is_recorded_and_the_run_goes_on(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = tiny.ways.HandWritten.__call__
    # What the others are held against is turned round: every decision of everybody is wrong.
    monkeypatch.setattr(tiny.ways.HandWritten, "__call__", lambda self, work: real(self, work).flip(1))
    status, rows = run(tmp_path, "--only", "dpad_fast float32")
    assert status == 1
    assert "decisions that differ: dpad_fast float32 (PIL), " in capsys.readouterr().out
    assert [(float(row["p50_ms"]) > 0, row["wrong"]) for row in rows] == [(True, "8")] * 3


def test_no_turn_starts_when_time_is_up(tiny: Any, tmp_path: Path) -> None:
    _, rows = run(tmp_path, "--runs", "50", "--seconds", "0.001", "--only", "transformers float32")
    assert {row["turns"] for row in rows} == {"1"}


def test_decisions_over_many_completions_on_a_device(tiny: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from bench.reward import __main__ as door

    assert door.main(["--tiny", "--device", "cpu", "--equality", "40", "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    assert "40 completions" in printed
    assert "discrete terms" not in printed  # those know no device


def test_open_clip_gets_the_same_weights(tiny: Any) -> None:
    made = tiny.gpu_ways.open_clip_of(tiny.clip.model)
    pixels, ids = torch.randn(3, 3, 32, 32), tiny.clip.slow.tokenizer(["a red cat"], return_tensors="pt")["input_ids"]
    padded = torch.nn.functional.pad(ids, (0, 77 - ids.shape[1]))
    with torch.inference_mode():
        for mine, theirs in (
            (made.encode_image(pixels), tiny.clip.model.get_image_features(pixel_values=pixels)),
            (made.encode_text(padded), tiny.clip.model.get_text_features(input_ids=ids)),
        ):
            torch.testing.assert_close(mine, theirs.pooler_output, atol=1e-5, rtol=1e-5)


def event(key: str, count: int, device: DeviceType, spent: float = 0.0, **more: Any) -> SimpleNamespace:
    return SimpleNamespace(key=key, count=count, device_type=device, self_device_time_total=spent, **more)


def test_counts_are_those_of_the_gpus_own_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from bench.reward.counts import counts, scaled

    events = [
        event("aten::addmm", 4, DeviceType.CPU, 900.0),  # the time of the kernels that it launched: not once more
        event("cudaLaunchKernel", 5, DeviceType.CPU),
        event("cuLaunchKernelEx", 2, DeviceType.CPU),
        event("cudaGraphLaunch", 1, DeviceType.CPU),
        event("cudaStreamSynchronize", 3, DeviceType.CPU),
        event("gemm", 4, DeviceType.CUDA, 900.0),
        event("a step", 1, DeviceType.CUDA, 5000.0, is_user_annotation=True),
        event("Memcpy HtoD (Pinned -> Device)", 2, DeviceType.CUDA, 60.0),
        event("Memcpy HtoD (Pageable -> Device)", 1, DeviceType.CUDA, 30.0),
        event("Memcpy DtoH (Device -> Pinned)", 1, DeviceType.CUDA, 10.0),
        event("Memset (Device)", 1, DeviceType.CUDA),
    ]
    assert counts(events) == {
        "launches": 8, "kernels": 4, "up": 3, "down": 1, "pageable": 1, "waits": 3, "gpu_ms": "1.00",
    }  # fmt: skip
    two = scaled({"launches": 8, "gpu_ms": "1.00", "peak_mb": "70"}, 2)
    assert two == {"launches": 16, "gpu_ms": "2.00", "peak_mb": "70"}
    # A profiler that may not look at the GPU sees what the host did: of the GPU nothing was measured, which is not 0.
    blind = counts(events[:5])
    assert blind == dict.fromkeys(("launches", "kernels", "up", "down", "pageable", "waits", "gpu_ms"), "")
    assert scaled(blind | {"peak_mb": "70"}, 2) == blind | {"peak_mb": "70"}


def test_without_a_gpu_nothing_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from bench.reward import __main__ as door

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for more in ([], ["--equality", "10", "--tiny"]):
        assert door.main(["--device", "cuda", "--out", str(tmp_path), *more]) == 2
        assert "finds no GPU; nothing was timed" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at_the_end", [0, 1])
def test_a_profile_does_not_count_its_own_waits(monkeypatch: pytest.MonkeyPatch, at_the_end: int) -> None:
    """Some versions of torch wait for the device when a profile ends, and the first profile is set up."""
    monkeypatch.syspath_prepend(str(ROOT))
    from bench.reward import counts

    calls: list[str] = []
    seen: list[int] = []

    class Profile:
        def __init__(self, activities: Any) -> None:
            assert len(activities) == 2

        def __enter__(self) -> Profile:
            calls.append("begins")
            self.waited = calls.count("synchronize") - (not seen)
            return self

        def __exit__(self, *_: object) -> None:
            seen.append(calls.count("synchronize") - self.waited + at_the_end)
            calls.append("ends")

        def key_averages(self) -> list[Any]:
            return [
                event("cudaDeviceSynchronize", seen[-1], DeviceType.CPU),
                *([event("kernel", 1, DeviceType.CUDA)] if "call" in calls else []),
            ]

    def call() -> None:
        calls.append("call")
        for _ in range(2):
            torch.cuda.synchronize()

    counts.own_waits.cache_clear()
    monkeypatch.setattr(torch.profiler, "profile", Profile)
    for name, value in (("synchronize", None), ("reset_peak_memory_stats", None), ("memory_allocated", 5_000_000)):
        monkeypatch.setattr(torch.cuda, name, lambda name=name, value=value: calls.append(name) or value)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 75_000_000)
    found, _ = counts.profiled(call)
    assert (found["waits"], found["kernels"], found["peak_mb"]) == (2, 1, "70")
    empty = ["begins", "synchronize", "ends"]
    before = ["synchronize", "reset_peak_memory_stats", "memory_allocated"]
    mine = ["begins", "call", *["synchronize"] * 3, "ends"]
    assert calls == [*empty, *empty, *before, *mine]
    assert counts.profiled(call)[0]["waits"] == 2
    assert calls[len(empty) * 2 :] == [*before, *mine] * 2  # what is its own was measured once
    counts.own_waits.cache_clear()
