"""The one choice of an instruction set: what each group of ops uses, and names that there are not."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from dpad_fast import cli
from dpad_fast._native import extension

X86, ARM = ["scalar", "avx2", "avx512", "amx"], ["scalar", "neon", "i8mm"]
HERE = ARM if platform.machine() in {"aarch64", "arm64"} else X86
LEVELS = [*X86, *ARM[1:]]
KNOWN = "DPAD_FAST_SIMD must be one of best, scalar, avx2, avx512, amx, neon, i8mm, got "


def python(*arguments: str, simd: str | None) -> subprocess.CompletedProcess[str]:
    """An interpreter of its own, as DPAD_FAST_SIMD is read once in a process."""
    environment = {name: value for name, value in os.environ.items() if name != "DPAD_FAST_SIMD"}
    if simd is not None:
        environment["DPAD_FAST_SIMD"] = simd
    return subprocess.run(
        [sys.executable, *arguments], env=environment, check=False, capture_output=True, text=True, timeout=120
    )


def report(simd: str | None) -> dict[str, str]:
    code = "import json; from dpad_fast._native import extension; print(json.dumps(extension.C.simd_report()))"
    done = python("-c", code, simd=simd)
    assert done.returncode == 0, done.stderr
    levels: dict[str, str] = json.loads(done.stdout)
    return levels


def processor() -> set[str]:
    """What the operating system says that the processor has."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        pytest.skip("needs /proc/cpuinfo")
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return set(flags.split(":", 1)[-1].split())


def expected(allowed: str) -> dict[str, str]:
    has = processor()
    avx512 = {"avx512f", "avx512bw", "avx512vl"}
    needs = {
        "crops": {"avx512": avx512 | {"fma", "f16c"}, "avx2": {"avx2", "fma", "f16c"}},
        "masks": {
            "avx512": avx512 | {"avx512dq", "avx512_vpopcntdq", "avx512vbmi", "avx512_vbmi2"},
            "avx2": {"avx2", "popcnt", "bmi2"},
        },
        "tower": {
            "amx": avx512 | {"avx512dq", "avx512_vnni", "amx_tile", "amx_int8"},
            "avx512": avx512 | {"avx512dq", "avx512_vnni"},
            "i8mm": {"asimd", "i8mm"},
            "neon": {"asimd"},
        },
    }
    # A level of another architecture leaves plain code.
    may = HERE[: HERE.index(allowed) + 1] if allowed in HERE else []
    return {
        group: next((level for level, flags in levels.items() if flags <= has and level in may), "scalar")
        for group, levels in needs.items()
    }


@pytest.mark.parametrize("level", LEVELS)
def test_no_more_than_what_is_allowed_is_used(level: str) -> None:
    assert report(level) == expected(level)


@pytest.mark.parametrize("simd", [None, "", "best"])
def test_the_best_is_used_where_nothing_is_asked_for(simd: str | None) -> None:
    assert report(simd) == expected(HERE[-1])


@pytest.mark.parametrize("simd", ["avx521", "AVX2", "avx512 ", "NEON", "sve", "0"])
def test_an_unknown_name_is_refused_with_the_known_ones(simd: str) -> None:
    done = python("-c", "from dpad_fast._native import extension; extension.C", simd=simd)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"ValueError: {KNOWN}'{simd}'"


def test_no_op_runs_with_an_unknown_name() -> None:
    """The extension itself refuses too, and again at the second call."""
    code = (
        "import array\n"
        "from dpad_fast import _C\n"
        "mask, out = array.array('B', [1]), array.array('q', [0, 0])\n"
        "place, found = (memory.buffer_info()[0] for memory in (mask, out))\n"
        "for _ in range(2):\n"
        "    try:\n"
        "        _C.dense_pair_counts(place, place, 0, 0, 1, 1, 1, found, found + 8)\n"
        "    except ValueError as error:\n"
        "        print(error)\n"
    )
    done = python("-c", code, simd="sse2")
    assert done.stdout.splitlines() == [KNOWN + "'sse2'"] * 2, done.stderr


def test_info_says_it_in_words() -> None:
    done = python("-m", "dpad_fast.info", simd="avx521")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stdout.count(KNOWN + "'avx521'") == 2  # of the extension, and of the processor
    good = python("-m", "dpad_fast.info", simd="scalar")
    assert good.returncode == 0
    assert "crops scalar, masks scalar, tower scalar" in good.stdout


def test_a_command_says_it_in_one_line(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert cli.main(["data", "shapes", "--out", str(data), "--count", "1"]) == 0
    answers = tmp_path / "answers.jsonl"
    (name,) = (path.stem for path in data.glob("*.json"))
    answers.write_text(json.dumps({"id": name, "completion": "<answer><box>(1,2),(30,40)</box></answer>"}) + "\n")
    done = python("-m", "dpad_fast.cli", "evaluate", str(answers), "--data", str(data), simd="avx521")
    assert done.returncode == 2
    assert done.stderr == f"dpad-fast evaluate: error: {KNOWN}'avx521'\n"


def test_a_level_of_one_call_has_a_known_name() -> None:
    crops = extension.C.roi_clip_preprocess
    with pytest.raises(ValueError, match="simd must be one of best, scalar, avx2, avx512, amx, neon, i8mm, got 'sse2'"):
        crops([], 0, 0, 0, 1, "squash", "bicubic", "floor", "horizontal", [0.0] * 3, [1.0] * 3, "float32", "sse2", 1, 0)
