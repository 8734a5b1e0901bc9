"""Versions, what was built, what this machine offers: `python -m dpad_fast.info`, the first thing to put in a report.

It never fails: a fact that cannot be found is replaced by a message, and an extension that does not load is explained.
"""

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

from dpad_fast._native import extension
from dpad_fast._version import __version__
from dpad_fast.terminal import drop_stdout, say, use_utf8

_PACKAGES = (
    "torch", "triton", "numpy", "pillow", "transformers", "trl", "accelerate", "datasets", "open_clip_torch",
    "flash-attn", "pycocotools", "opencv-python-headless",
)  # fmt: skip


def collect() -> dict[str, dict[str, str]]:
    """Gather everything that `main` prints.

    Returns:
        Sections by title, each a mapping from a name to its value in words.
    """
    return {
        "dpad-fast": _package(),
        "packages": {name: _version_of(name) for name in _PACKAGES},
        "C++ extension": _built(),
        "CPU": _cpu(),
        "GPU": _gpu(),
    }


def main() -> int:
    """Print all sections.

    Returns:
        0, or 1 when the extension cannot be used.
    """
    sections = collect()
    say(text_of(sections))
    return status_of(sections)


def text_of(sections: dict[str, dict[str, str]]) -> str:
    """Sections as lines: their titles, and under each the names and values."""
    lines = []
    for title, rows in sections.items():
        lines.append(title)
        width = max(map(len, rows), default=0)
        for name, value in rows.items():
            first, *rest = value.splitlines() or [""]
            lines += [f"  {name:<{width}}  {first}", *(f"  {'':<{width}}  {line}" for line in rest)]
    return "\n".join(lines)


def status_of(sections: dict[str, dict[str, str]]) -> int:
    """The exit status: 1 when the extension cannot be loaded."""
    return 1 if "failure" in sections["C++ extension"] else 0


def _version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _package() -> dict[str, str]:
    return {
        "version": __version__,
        "folder": str(Path(__file__).parent),
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
    }


def _built() -> dict[str, str]:
    try:
        module = extension.load()
    except (ImportError, ValueError) as error:
        return {"failure": str(error)}
    rows = {"file": str(module.__file__), **{key: str(value) for key, value in module.build_info().items()}}
    kernels = Path(__file__).parent / "kernels"
    names = sorted(path.stem for path in kernels.glob("*.py") if not path.stem.startswith("_"))
    return {**rows, "Triton kernels": ", ".join(names) or "none found"}


def _cpu() -> dict[str, str]:
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "model": cpu_model(),
        "cores": f"{allowed} of {os.cpu_count()} are ours",
        "instruction sets used": simd_levels(),
        "DPAD_FAST_SIMD": os.environ.get("DPAD_FAST_SIMD") or "not set",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set"),
    }


def simd_levels() -> str:
    """The instruction set that each group of ops uses in this process: "crops avx512, masks avx512, tower amx"."""
    try:
        report: dict[str, str] = extension.load().simd_report()
    except ImportError:
        return "unknown: the extension did not load"
    except ValueError as error:
        return f"none: {error}"
    return ", ".join(f"{group} {level}" for group, level in report.items())


def cpu_model() -> str:
    """The processor's name as the operating system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _gpu() -> dict[str, str]:
    try:
        import torch
    except ImportError as error:
        return {"torch": f"cannot be imported: {error}"}
    rows = {"torch built for": f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"}
    if not torch.cuda.is_available():
        return {**rows, "devices": "none that torch can use; the ops run on the CPU"}
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        rows[f"cuda:{index}"] = _device(properties)
        rows[f"cuda:{index}, encoders' attention"] = _attention(properties.major, properties.minor)
    return rows


def _attention(major: int, minor: int) -> str:
    try:
        from dpad_fast.clip.tower.gpu_attention import attention_on

        return attention_on((major, minor))
    except Exception as error:  # an installed package may raise anything, and this report never fails
        return f"unknown: {type(error).__name__}: {error}"


def _device(properties: Any) -> str:
    memory = properties.total_memory / 2**30
    return (
        f"{properties.name}, sm_{properties.major}{properties.minor}, {memory:.0f} GiB, "
        f"{properties.multi_processor_count} multiprocessors"
    )


if __name__ == "__main__":
    use_utf8()
    try:
        sys.exit(main())
    except BrokenPipeError:
        drop_stdout()  # the reader (`| head`) left
    except OSError as error:
        drop_stdout()
        print(f"dpad_fast.info: error: {error.strerror}: standard output", file=sys.stderr)
        sys.exit(2)
