"""Who may include whom in csrc, and that no file of it is long."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"
FILES = sorted(path for path in CSRC.rglob("*") if path.suffix in {".h", ".cpp", ".cu", ".cuh"})
# A folder includes from itself and from these; Python and CUDA's runtime are known in one folder each.
MAY_INCLUDE = {
    "simd": (),
    "core/base": ("simd",),
    "core/rewards": ("core/base", "simd"),
    "core/crops": ("core/base", "simd"),
    "core/masks": ("core/base", "simd"),
    "core/texts": (),
    "core/tower": ("core/base", "simd"),
    "cuda": (),
    "bindings": ("core", "cuda", "simd"),
}
ONLY_IN = {"pybind11/": "bindings", "Python.h": "bindings", "cuda_runtime.h": "cuda"}


def room(path: str) -> str:
    return next(room for room in MAY_INCLUDE if path.startswith(room + "/"))


def includes(path: Path) -> list[str]:
    return re.findall(r'^#\s*include\s+["<]([^">]+)[">]', path.read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(CSRC)) for path in FILES])
def test_includes_go_one_way(path: Path) -> None:
    here = room(str(path.relative_to(CSRC)))
    for name in includes(path):
        if (CSRC / name).exists():
            allowed = (here, *MAY_INCLUDE[here])
            assert any(name.startswith(folder + "/") for folder in allowed), f"{here} must not include {name}"
        for start, only in ONLY_IN.items():
            assert here == only or not name.startswith(start), f"{name} is for {only} only"


def test_every_table_has_its_levels_beside_it() -> None:
    """Rows are ops, columns are instruction sets: csrc/simd/*/{table,scalar,avx2,avx512,amx,neon,i8mm}.cpp."""
    columns = {
        folder.name: {path.stem for path in folder.glob("*.cpp")}
        for folder in (CSRC / "simd").iterdir()
        if folder.is_dir()
    }
    assert set(columns) == {"crops", "masks", "tower", "digits"}
    assert all({"table", "scalar"} <= names for names in columns.values())


def test_no_file_is_long() -> None:
    long = {str(path.relative_to(CSRC)): n for path in FILES if (n := len(path.read_text("utf-8").splitlines())) > 400}
    assert not long
