"""Results: one writer and reader of the CSV files in bench/results/, and what they say of the machine."""

from __future__ import annotations

import csv
import importlib.metadata
import platform
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

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


def name_of(device: torch.device) -> str:
    """The name of the GPU, or of the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else info.cpu_model()


def day(device: torch.device) -> dict[str, str]:
    """Where and when: the columns that every result of a GPU ends with."""
    return {
        "device": name_of(device),
        "driver": driver() if device.type == "cuda" else "",
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def driver(file: Path = Path("/proc/driver/nvidia/version")) -> str:
    """The version of NVIDIA's kernel module, or "unknown"."""
    words = file.read_text(encoding="utf-8").splitlines()[0].split() if file.is_file() else []
    return next((word for word in words if word[0].isdigit() and "." in word), "unknown")


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
