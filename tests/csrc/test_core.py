"""The C++ tests of csrc/core and csrc/simd: one executable, run file by file."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
FILES = sorted(str(path.relative_to(HERE)) for path in HERE.rglob("*_test.cpp"))


@pytest.fixture(scope="session")
def executable(build_host_target: Callable[[str], Path]) -> Path:
    return build_host_target("core_tests") / "core_tests"


@pytest.mark.parametrize("file", FILES)
def test_file(executable: Path, file: str) -> None:
    done = subprocess.run([executable, file], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_failure_is_found(executable: Path) -> None:
    """A filter that matches no test is a failure: a run without tests must not pass."""
    done = subprocess.run([executable, "no such file"], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1


def test_every_core_file_has_a_test() -> None:
    sources = {str(path.relative_to(CSRC).with_suffix("")) for path in (CSRC / "core").rglob("*.cpp")}
    assert not sources - {file.removesuffix("_test.cpp") for file in FILES}
