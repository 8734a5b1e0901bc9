"""Results: one writer and reader of the CSV files in bench/results/, and what they say of the machine."""

from __future__ import annotations

import csv
import importlib.metadata
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dpad_fast import info
from dpad_fast._native import extension as _extension

FOLDER = Path(__file__).parent / "results"
PACKAGES = (
    "torch", "numpy", "pillow", "torchvision", "transformers", "open_clip_torch", "opencv-python-headless",
    "kornia", "hf-processors-rs", "pycocotools", "faster-coco-eval", "hotcoco", "rlemasklib", "scikit-image",
)  # fmt: skip


def write(name: str, rows: Iterable[Mapping[str, Any]], folder: Path = FOLDER) -> Path:
    """Writes rows, all with the same columns, to `name`.csv.

    Returns:
        The file.

    Raises:
        ValueError: there are no rows, or one has other columns than the first.
    """
    found = list(rows)
    if not found:
        raise ValueError(f"{name}: there are no rows to write")
    columns = list(found[0])
    for i, row in enumerate(found):
        if list(row) != columns:
            raise ValueError(f"{name}: rows[{i}] has the columns {list(row)}, the first has {columns}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    partial = path.with_suffix(".csv.partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    partial.replace(path)
    return path


def read(name: str, folder: Path = FOLDER) -> list[dict[str, str]]:
    """The rows of `name`.csv, every value as text."""
    with (folder / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def device() -> str:
    """The processor, and the instruction set that the ops use on it."""
    return f"{info.cpu_model()}, {_extension.C.simd_report()['masks']}"


def versions() -> str:
    """Python and what is installed of the packages that take part."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"Python {platform.python_version()}, {platform.machine()}, " + ", ".join(found)


def percentile(values: list[float], fraction: float) -> float:
    """The value below which `fraction` of the values lie."""
    ordered = sorted(values)
    return ordered[min(int(fraction * len(ordered)), len(ordered) - 1)]
