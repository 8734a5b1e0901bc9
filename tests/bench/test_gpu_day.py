"""The day with a GPU: stages stop no other, at most eight files, prediction, what is kept, and the marker `gpu`."""

from __future__ import annotations

import ast
import csv
import importlib
import importlib.util
import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DAY = ROOT / "bench" / "gpu" / "day"


@pytest.fixture
def outcome(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("bench.gpu.outcome")


# --- the script ---

# Stands for python3: fails in the tests, hangs where it is told to, and says what it was asked for.
PYTHON = """#!/usr/bin/env bash
echo "$*" >>"$ASKED"
case "$*" in
  *e.C.cuda_pack*) [ -z "$NO_EXTENSION" ]; exit ;;
  *setup.py*) echo "nvcc was not found"; exit 3 ;;
esac
[ -z "$FINE" ] || exit 0
case "$*" in
  *-m\\ pytest*-n*) echo "FAILED tests/a.py::b - CUDA error"; echo "1 failed"; [ -z "$HANG" ] || sleep 60; exit 1 ;;
  *bench.reward*--out*) touch "$OUT/reward-gpu.csv"; echo "ratio: a of b, PIL: 0.5"; echo "decisions agree"; exit 0 ;;
  *bench.gpu\\ *--out*) touch "$OUT/gpu.csv"; echo "wrong: a"; exit 1 ;;
  *bench.gpu.outcome*) echo "as predicted" ;;
esac
"""


def run(tmp_path: Path, **more: str) -> tuple[subprocess.CompletedProcess[str], list[str], Path]:
    python, out, asked = tmp_path / "python3", tmp_path / "out", tmp_path / "asked"
    python.write_text(PYTHON)
    python.chmod(0o755)
    there = {"DEVICE": "cpu", "PYTHON": str(python), "OUT": str(out), "ASKED": str(asked)} | more
    done = subprocess.run(
        ["bash", str(DAY / "run.sh")], env=os.environ | there, check=False, capture_output=True, text=True, timeout=60
    )
    return done, asked.read_text().splitlines(), out


def test_a_stage_that_fails_stops_no_other(tmp_path: Path) -> None:
    done, asked, out = run(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr  # after all was run, printed and kept
    order = [next(i for i, line in enumerate(asked) if words in line) for words in (
        "-m gpu tests/", "bench.reward --device cpu --runs 25", "--equality 20000", "bench.gpu --device cpu",
        "every_bit", "bench.gpu.profiles", "bench.gpu.outcome",
    )]  # fmt: skip
    assert order == sorted(order)
    summary = (out / "summary.txt").read_text()
    for line in (
        "tests ended with 1",
        "FAILED tests/a.py::b - CUDA error",
        "reward ended with 0",
        "ratio: a of b, PIL: 0.5",
        "ops ended with 1",
        "wrong: a",
    ):
        assert line in summary
    assert "as predicted" in summary
    files = {path.name for path in out.iterdir()}
    assert files == {
        "summary.txt", "tests.txt", "reward.txt", "reward-gpu.csv", "ops.txt", "gpu.csv", "sanitizers.txt",
        "profiles.txt",
    }  # fmt: skip


def test_the_status_is_that_of_the_stages(tmp_path: Path) -> None:
    done, _, out = run(tmp_path, FINE="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tests ended with 0" in (out / "summary.txt").read_text()


def test_an_extension_that_is_built_there_says_so_in_the_file_of_the_tests(tmp_path: Path) -> None:
    """At most eight files may come back, whatever happened."""
    done, asked, out = run(tmp_path, DEVICE="cuda", NO_EXTENSION="1")
    assert done.returncode == 1
    assert any("setup.py -q build_ext" in line for line in asked)
    text = (out / "tests.txt").read_text()
    assert text.index("nvcc was not found") < text.index("1 failed")
    assert len(list(out.iterdir())) <= 8
    # Its share beside all other stages, which have theirs.
    assert re.search(r"tests ended with 3, within 9\d s", (out / "summary.txt").read_text())


def test_a_stage_that_hangs_ends_with_its_time(tmp_path: Path) -> None:
    done, asked, out = run(tmp_path, HANG="1", LIMIT="36")
    summary = (out / "summary.txt").read_text()
    assert re.search(r"tests ended with 124, within [56] s", summary)  # 80 of 455 seconds of all stages, and not all 36
    assert any("bench.reward" in line for line in asked)  # what follows has its share too
    assert done.returncode == 1


def test_stages_for_which_there_is_no_time_are_named(tmp_path: Path) -> None:
    done, asked, out = run(tmp_path, LIMIT="4")
    assert (out / "summary.txt").read_text().count("no time left for") == 6
    assert not any("-m pytest" in line for line in asked)
    assert done.returncode == 1


LIMITS = {"tests": [80], "reward": [110, 55], "ops": [60], "sanitizers": [50, 25], "profiles": [40, 60]}


def test_scripts_are_sound_and_the_limits_fit() -> None:
    for script in DAY.glob("*.sh"):
        assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
        assert os.access(script, os.X_OK)
    text = (DAY / "run.sh").read_text()
    limits: dict[str, list[int]] = {}
    for name, seconds in re.findall(r"^ *(?:\w+=\S+ )*stage (\w+) (\d+) ", text, re.MULTILINE):
        limits.setdefault(name, []).append(int(seconds))
    assert limits.pop("tests") == [120, *LIMITS["tests"]]  # the first builds an extension that was not brought along
    assert limits == {name: found for name, found in LIMITS.items() if name != "tests"}
    # Of the sanitizers there are two runs of 25 on a GPU, or one of 50 that only collects on a CPU.
    whole = sum(sum(found) for found in LIMITS.values()) - 25
    assert re.search(r"^later=(\d+) ", text, re.MULTILINE)[1] == str(whole)  # type: ignore[index]
    # With 10 seconds to get ready, and 5 more for each of two stages that do not end by themselves.
    assert whole + 10 <= int(re.search(r"limit=\$\{LIMIT:-(\d+)\}", text)[1]) <= 480 - 10  # type: ignore[index]


def test_every_stage_has_all_of_its_time(tmp_path: Path) -> None:
    """Each as if all before it had run to their limits would leave a last one without; these ended at once."""
    _, asked, out = run(tmp_path, FINE="1")
    said = re.findall(r"(\w+) ended with 0, within (\d+) s", (out / "summary.txt").read_text())
    assert said == [(name, str(seconds)) for name, seconds in (
        ("tests", 80), ("reward", 110), ("reward", 55), ("ops", 60), ("sanitizers", 50), ("profiles", 40),
    )]  # fmt: skip
    assert any("bench.reward --device cpu --runs 25 --queries 16 --seconds 66 " in line for line in asked)
    assert any("--seconds 40 --out" in line for line in asked)  # of the ops


# Stands for python3.12: makes environments whose python is itself, and builds where setuptools would.
PYTHON312 = """#!/usr/bin/env bash
case "$*" in
  -m\\ venv*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && ln -s /bin/true "$3/bin/pip" ;;
  *setup.py*)
    lib=.
    while [ $# -gt 0 ]; do
      [ "$1" != --build-lib ] || lib=$2
      shift
    done
    mkdir -p "$lib/dpad_fast" && echo built >"$lib/dpad_fast/_C.cpython-312-x.so" ;;
esac
"""


def test_what_a_developer_built_stays_in_place(tmp_path: Path) -> None:
    tree, python = tmp_path / "tree", tmp_path / "python3.12"
    for folder in (tree / "dpad_fast", tree / "bench" / "gpu" / "day"):
        folder.mkdir(parents=True)
    shutil.copy(DAY / "prepare.sh", tree / "bench" / "gpu" / "day")
    mine = tree / "dpad_fast" / "_C.cpython-312-x.so"
    mine.write_text("a developer's")
    python.write_text(PYTHON312)
    python.chmod(0o755)
    subprocess.run(["git", "init", "-q", str(tree)], check=True, timeout=20)
    command = ["bash", str(tree / "bench" / "gpu" / "day" / "prepare.sh")]
    there = os.environ | {"PYTHON312": str(python), "CVCUDA": "0"}
    done = subprocess.run(command, env=there, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert mine.read_text() == "a developer's"
    assert (tree / ".gpu" / "_C.cpython-312-x.so").read_text() == "built\n"
    assert sorted(path.name for path in (tree / ".gpu").iterdir()) == ["_C.cpython-312-x.so", "wheels"]
    assert "git ignores .gpu: carry it along by name (`.gpu`)" in done.stdout


# --- what is sent along ---


def container(*entries: tuple[int, int, bytes]) -> bytes:
    """Device code as nvcc packs it: (kind, capability, code)."""
    body = b""
    for kind, capability, code in entries:
        body += (
            struct.pack("<HHIQ", kind, 0x101, 64, len(code))
            + bytes(12)
            + struct.pack("<I", capability)
            + bytes(32)
            + code
        )
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


@pytest.fixture
def trim() -> Any:
    spec = importlib.util.spec_from_file_location("trim", DAY / "trim.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_device_code_of_other_gpus_is_erased(trim: Any) -> None:
    old, mine, text = b"\x01" * 24, b"\x02" * 40, b"\x03" * 8
    whole = (
        b"\x7fELF host code "
        + container((2, 80, old), (2, 90, mine), (1, 120, text))
        + b"more"
        + container((2, 80, old))
    )
    out, erased = trim.trimmed(whole, 90)
    assert (len(out), erased) == (len(whole), 24 + 8)
    assert out == b"\x7fELF host code " + container(
        (2, 80, bytes(24)), (2, 90, mine), (1, 120, bytes(8))
    ) + b"more" + container((2, 80, old))
    assert trim.trimmed(b"no device code", 90) == (b"no device code", 0)
    with pytest.raises(ValueError, match=r"the container at 15 ends at \d+, beyond"):
        trim.trimmed(whole[: len(whole) // 2], 90)
    with pytest.raises(ValueError, match=r"the entry at 16 is not built as expected: kind=7"):
        trim.trimmed(container((7, 80, old)), 90)


def test_a_wheel_is_cut_down(trim: Any, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("p/__init__.py", "x = 1")
        for python in ("311", "312", "314t"):
            wheel.writestr(
                f"p/_p.cpython-{python}-x86_64-linux-gnu.so", b"\x7fELF" + container((2, 80, b"a" * 9), (2, 90, b"b"))
            )
        wheel.writestr("p-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: p\nVersion: 1\n")
        wheel.writestr("p-1.dist-info/RECORD", "p/__init__.py,sha256=aaa,5\n")
    (tmp_path / "out").mkdir()
    made = trim.trim(tmp_path / "p-1-py3-none-any.whl", tmp_path / "out", 90, "cp312")
    with zipfile.ZipFile(made) as found:
        module = "p/_p.cpython-312-x86_64-linux-gnu.so"
        assert found.namelist() == ["p/__init__.py", module, "p-1.dist-info/METADATA", "p-1.dist-info/RECORD"]
        assert found.read(module) == b"\x7fELF" + container((2, 80, bytes(9)), (2, 90, b"b"))
        assert found.read("p-1.dist-info/RECORD").decode().splitlines() == [f"{name},," for name in found.namelist()]


# --- prediction and result ---


def test_every_prediction_is_one(outcome: Any) -> None:
    rows = outcome.rows_in(outcome.PREDICTION)
    assert len(rows) > 20
    for row in rows:
        assert row["table"] in ("reward-gpu", "gpu"), row
        assert 0 < float(row["low"]) < float(row["high"]), row
        assert len(row["why"]) > 10, row


def test_every_prediction_of_an_op_is_about_a_contestant(outcome: Any) -> None:
    contests = importlib.import_module("bench.gpu.contests")
    there = [
        (provider.name, contest.case)
        for made in contests.contests("cpu").values()
        for contest in made
        for provider in (*contest.ours, *contest.peers)
    ]
    columns = ("p20_us", "p50_us", "p80_us", "warm_us", "graph_us")
    for row in outcome.rows_in(outcome.PREDICTION):
        if row["table"] == "gpu":
            assert any(name == row["name"] and case.startswith(row["where"]) for name, case in there), row
            assert row["column"] in columns


def write(path: Path, *rows: dict[str, str]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_only_results_of_a_gpu_are_kept(outcome: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, out = tmp_path / "results", tmp_path / "out"
    kept.mkdir()
    out.mkdir()
    monkeypatch.setattr(outcome, "RESULTS", kept)
    columns = dict.fromkeys(("launches", "waits", "gpu_ms"), "")
    rehearsed = {"contestant": "dpad_fast guarded", "pictures": "PIL", "p50_ms": "30.0", "driver": ""} | columns
    with pytest.raises(ValueError, match="holds no results of a GPU"):
        outcome.keep(out)
    write(out / "reward-gpu.csv", rehearsed)
    with pytest.raises(ValueError, match="holds no results of a GPU"):
        outcome.keep(out)
    assert list(kept.iterdir()) == []
    assert {measured for _, _, measured, _, _ in outcome.beside(out)} == {outcome.NOT_YET}
    write(out / "reward-gpu.csv", rehearsed | {"driver": "580"})
    assert outcome.beside(out)[0][:3] == ("dpad_fast guarded, PIL: p50 ms", "7 to 13", "30")
    (out / "summary.txt").write_text(
        f"H100, at 3.5 us / call\n  folder {tmp_path}/dpad-fast ({tmp_path}/bin/python3)\ntests/ops --out {out}"
    )
    assert [path.name for path in outcome.keep(out)] == ["reward-gpu.csv", "gpu-day.txt"]
    assert (kept / "reward-gpu.csv").read_bytes() == (out / "reward-gpu.csv").read_bytes()
    named = "H100, at 3.5 us / call\n  folder dpad-fast (python3)\ntests/ops --out out"
    assert (kept / "gpu-day.txt").read_text() == named  # and no machine's folders


def test_a_measurement_stands_to_its_prediction(outcome: Any) -> None:
    asked = {"table": "gpu", "name": "ours", "where": "32 crops", "column": "graph_us", "low": "10", "high": "20"}
    rows = [
        {"provider": "ours", "case": "32 crops of a", "graph_us": ""},
        {"provider": "ours", "case": "32 crops of b", "graph_us": "5"},
    ]
    assert outcome.measured(asked, rows) == 5
    assert outcome.measured(asked | {"name": "theirs"}, rows) is None
    said = [outcome.verdict(asked, value) for value in (None, 10.0, 20.0, 40.0, 5.0, 0.0, -1.0)]
    assert said[:5] == ["", "as predicted", "as predicted", "2.0x the upper end", "2.0x below the lower end"]
    assert said[5:] == ["below the lower end"] * 2  # how many times lies it below? there is no such number


# --- the marker ---


def test_tests_of_a_gpu_are_marked() -> None:
    """The day runs what is marked; a test that skips itself by `missing_cuda` would be forgotten there."""
    modules = [path for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
    forgotten = [
        str(path.relative_to(ROOT)) for path in modules if "missing_cuda()" in path.read_text(encoding="utf-8")
    ]
    assert forgotten == []


REQUIRED = {"torch", "numpy", "PIL", "yaml", "safetensors", "transformers", "tokenizers", "huggingface_hub", "rich"}
REQUIRED |= {"pytest", "hypothesis", "setuptools", "packaging", "dpad_fast", "bench", *sys.stdlib_module_names}


def imported(path: Path) -> set[str]:
    """Packages that a module imports when it is collected, less those without which it skips itself before."""
    found, skipped = set(), set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
        elif isinstance(node, (ast.Assign, ast.Expr)) and "importorskip(" in ast.unparse(node):
            skipped |= set(re.findall(r"importorskip\(['\"](\w+)", ast.unparse(node)))
    return found - skipped


def test_modules_skip_themselves_where_a_peer_is_missing() -> None:
    """A machine for a few minutes lacks most peers, and a module that cannot be collected is an error there."""
    modules = (ROOT / "tests").rglob("test_*.py")
    missing = {str(path.relative_to(ROOT)): imported(path) - REQUIRED for path in modules}
    # Each is run in an environment of its own, which has the trainer that it tests; it skips itself without that one.
    besides = {path: names for path, names in missing.items() if names and "/integrations/with_" not in path}
    assert besides == {}


def test_what_is_marked_is_skipped_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("root_conftest", ROOT / "tests" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    conftest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conftest)

    class Item:
        def __init__(self, mark: Any) -> None:
            self.mark, self.added = mark, []  # type: ignore[var-annotated]

        def get_closest_marker(self, name: str) -> Any:
            assert name == "gpu"
            return self.mark

        def add_marker(self, mark: Any) -> None:
            self.added.append((mark.name, mark.kwargs["reason"]))

    def skipped() -> list[bool]:
        items = [Item(None), Item(SimpleNamespace(kwargs={})), Item(SimpleNamespace(kwargs={"interpreter": True}))]
        conftest.pytest_collection_modifyitems(items)
        return [bool(item.added) for item in items]

    import dpad_fast.testing as devices

    monkeypatch.setattr(devices, "missing_cuda", lambda: "no GPU")
    assert skipped() == [False, True, False]
    monkeypatch.setattr(devices, "missing_cuda", lambda: None)
    assert skipped() == [False, False, False]
