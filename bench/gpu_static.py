"""What the compiler makes of the GPU kernels, without a GPU: `python -m bench.gpu_static`.

Every Triton kernel is compiled as its launcher would compile it, for each architecture and dtype, and the machine code
is read: registers, spills, shared memory, how many warps a multiprocessor can hold, width of global loads and stores.
The bytes of a call are compared with the least that any implementation must move, and turned into a roofline time. That
time is a prediction from data sheets, not a measurement; nothing here runs on a GPU.

Exit status 1 where a kernel spills, or where its main loads or stores are narrower than they can be.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

ARCHITECTURES = (80, 90, 100)
# Per multiprocessor: registers, bytes of shared memory, warps, thread blocks (CUDA programming guide).
LIMITS = {80: (65536, 163 * 1024, 64, 32), 90: (65536, 227 * 1024, 64, 32), 100: (65536, 227 * 1024, 64, 32)}
BANDWIDTH = {"A100": 2.039e12, "H100": 3.35e12}  # bytes per second: the 80 GB SXM data sheets


@dataclass(frozen=True)
class Case:
    """One call whose kernels are looked at.

    Attributes:
        name: op and what is special about the call.
        run: calls the launcher.
        wide: kernels whose main loads or stores must be 16 bytes wide, with which of the two ("loads", "stores").
        moved: bytes that the call asks of memory, each distinct byte once per program that reads it.
        least: bytes that any implementation must read and write once.
    """

    name: str
    run: Callable[[], object]
    wide: dict[str, tuple[str, ...]]
    moved: int
    least: int


@dataclass(frozen=True)
class Row:
    """What was found in one kernel."""

    case: Case
    kernel: str
    architecture: int
    registers: int
    spilled: int
    shared: int
    warps: int
    loads: dict[int, int]
    stores: dict[int, int]

    def faults(self) -> list[str]:
        """Why this kernel does not pass."""
        found = [f"{self.spilled} bytes spilled"] if self.spilled else []
        for kind in self.case.wide.get(self.kernel, ()):
            if 16 not in getattr(self, kind):
                found.append(f"no 16-byte {kind}")
        return found


class _Driver:
    """Stands in for a GPU's driver: names the architecture, and has nothing to launch on."""

    def __init__(self, architecture: int) -> None:
        self.architecture = architecture

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.architecture, 32)

    def get_current_device(self) -> int:
        return self.architecture

    def get_current_stream(self, device: int | None = None) -> int:
        return 0


@contextmanager
def compile_only(architecture: int) -> Iterator[list[tuple[str, Any]]]:
    """Within it, launching a Triton kernel only compiles it; gives the list of (name, compiled kernel)."""
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    compiled: list[tuple[str, Any]] = []
    original = JITFunction.run

    def run(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        kernel = original(self, *args, grid=grid, warmup=True, **kwargs)
        compiled.append((self.__name__, kernel))
        return kernel

    driver.set_active(_Driver(architecture))
    JITFunction.run = run
    try:
        yield compiled
    finally:
        JITFunction.run = original
        driver._active = None


def cases() -> list[Case]:
    """The calls of a training step: 128 to 1024 completions, 16 images of 640 x 480."""
    return [*_advantage_cases(), *_discriminative_cases(), *_preprocess_cases()]


def _advantage_cases() -> Iterator[Case]:
    from dpad_fast.kernels import group_advantage as kernel

    n, t = 1024, 512
    ids = torch.arange(n) % 128
    wide = {"group_advantage_kernel": ("loads", "stores")}
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        rewards, mask = torch.zeros(n, dtype=dtype), torch.ones(n, t, dtype=torch.int64)
        bytes_out = n * t * (8 + (8 if dtype == torch.float64 else 4))
        own = n * rewards.element_size()
        yield Case(
            f"group_advantage std, groups of 8, {_short(dtype)}, [N, T] int64 mask",
            lambda r=rewards, m=mask: kernel.launch(r, None, 8, "std", 1e-6, None, m, False),
            wide,
            bytes_out + 2 * own,
            bytes_out + own,
        )
    rewards, weights, mask = torch.zeros(n, 4), torch.ones(4), torch.ones(n, t, dtype=torch.bool)
    for scale in ("batch", "gdpo"):
        yield Case(
            f"group_advantage {scale}, ids, 4 terms, [N, T] bool mask",
            lambda s=scale: kernel.launch(rewards, ids, 0, s, 1e-6, weights, mask, False),
            {"group_advantage_kernel": ("stores",)},
            n * t * 5 + n // kernel.ROWS * n * (8 + 16),
            n * t * 5 + n * (8 + 16),
        )


def _discriminative_cases() -> Iterator[Case]:
    from dpad_fast.kernels import discriminative_reward as kernel

    n, m, d = 128, 16, 512
    rows = torch.arange(n) % m
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        text, roi = torch.zeros(n, d, dtype=dtype), torch.zeros(m, d, dtype=dtype)
        element = text.element_size()
        yield Case(
            f"discriminative_reward, D = 512, {_short(dtype)}",
            lambda t=text, r=roi: kernel.launch(t, r, r, rows, "binary", 10.0, 0.0),
            {"discriminative_reward_kernel": ("loads",)},
            3 * n * d * element + n * 20,
            (n + 2 * m) * d * element + n * 20,
        )


def _preprocess_cases() -> Iterator[Case]:
    from dpad_fast.kernels import roi_clip_preprocess as kernel

    image = torch.zeros(480, 640, 3, dtype=torch.uint8)
    boxes = np.array([[0, 0, 640, 480], [100, 50, 400, 350]] * 16)
    index = np.repeat(np.arange(16), 2)
    weights_bytes = 2 * len(boxes) * 224 * 4 * 16
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        out = torch.empty(len(boxes), 3, 224, 224, dtype=dtype)
        least = 16 * image.numel() + out.numel() * out.element_size()
        yield Case(
            f"roi_clip_preprocess, 16 images, 32 boxes, {_short(dtype)}",
            lambda o=out: kernel.launch(
                [image] * 16, boxes, index, o, resize="shortest", interpolation="bicubic", center="floor",
                order="pillow-13", mean=(0.5,) * 3, std=(0.5,) * 3,
            ),
            # Loads are bytes by nature: a box starts at any column, and a tap's pixels lie 3 bytes apart.
            {"pixels_kernel": ("stores",)},
            least + weights_bytes,
            least,
        )  # fmt: skip


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def look_at(case: Case, architecture: int) -> list[Row]:
    """Compile a case's kernels and read their machine code."""
    with compile_only(architecture) as compiled:
        case.run()
    distinct = {id(kernel): (name, kernel) for name, kernel in compiled}
    return [_row(case, architecture, name, kernel) for name, kernel in distinct.values()]


def _row(case: Case, architecture: int, name: str, kernel: Any) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(kernel.asm["cubin"])
        usage = _tool("cuobjdump", "-res-usage", str(cubin))
        code = _tool("nvdisasm", "-c", str(cubin))
    registers = _number(r"REG:(\d+)", usage)
    return Row(
        case,
        name,
        architecture,
        registers,
        _number(r"STACK:(\d+)", usage) + _number(r"LOCAL:(\d+)", usage),
        kernel.metadata.shared,
        _resident_warps(architecture, registers, kernel.metadata.shared, kernel.metadata.num_warps),
        _widths("LDG", code),
        _widths("STG", code),
    )


def _tool(name: str, *arguments: str) -> str:
    import triton.backends.nvidia

    path = Path(triton.backends.nvidia.__file__).parent / "bin" / name
    return subprocess.run([str(path), *arguments], check=True, capture_output=True, text=True).stdout


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"{pattern} is not in what cuobjdump printed: {text!r}")
    return int(found[1])


def _widths(instruction: str, code: str) -> dict[int, int]:
    """How many instructions move how many bytes per thread."""
    counts: Counter[int] = Counter()
    for modifiers in re.findall(rf"\b{instruction}((?:\.\w+)+)", code):
        parts = modifiers.split(".")
        bits = next((int(part) for part in parts if part in ("64", "128", "256")), None)
        byte = next((int(part[1:]) // 8 for part in parts if re.fullmatch(r"[US](8|16)", part)), None)
        counts[bits // 8 if bits else byte or 4] += 1
    return dict(sorted(counts.items(), reverse=True))


def _resident_warps(architecture: int, registers: int, shared: int, warps: int) -> int:
    """Warps that fit on a multiprocessor, by registers (given out to a warp in 256s), shared memory and blocks."""
    all_registers, all_shared, all_warps, blocks = LIMITS[architecture]
    per_warp = -(-registers * 32 // 256) * 256
    by_registers = all_registers // per_warp // warps
    by_shared = all_shared // (shared + 1024)
    return min(by_registers, by_shared, all_warps // warps, blocks) * warps


def report(case: Case, rows: list[Row]) -> str:
    """What was found in one case's kernels, and the case's prediction."""
    times = ", ".join(f"{name} {1e6 * case.least / rate:.1f} us" for name, rate in BANDWIDTH.items())
    lines = [
        case.name,
        f"  asks for {case.moved / 1e6:.2f} MB, {case.moved / case.least:.2f} x the least ({case.least / 1e6:.2f} MB)",
        f"  roofline, a prediction from data sheets and not a measurement: {times}",
        f"  {'kernel':<29} {'sm':>4} {'regs':>5} {'spill':>5} {'shared':>6} {'warps':>6}  loads; stores",
    ]
    for row in rows:
        widths = "; ".join(
            ", ".join(f"{count} x {width}" for width, count in kind.items()) for kind in (row.loads, row.stores)
        )
        lines.append(
            f"  {row.kernel:<29} {row.architecture:>4} {row.registers:>5} {row.spilled:>5} {row.shared:>6} "
            f"{row.warps:>3}/64  {widths}{''.join(f'  FAULT: {fault}' for fault in row.faults())}"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Compile, print, and fail on a fault."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_static", description=__doc__.split("\n")[0])
    parser.add_argument("--arch", type=int, nargs="*", default=ARCHITECTURES, choices=ARCHITECTURES)
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    options = parser.parse_args(arguments)
    chosen = [case for case in cases() if options.only in case.name]
    if not chosen:
        parser.error(f"no case's name contains {options.only!r}")
    looked_at, faults = 0, 0
    for case in chosen:
        rows = [row for arch in options.arch for row in look_at(case, arch)]
        print(report(case, rows), end="\n\n", flush=True)
        looked_at += len(rows)
        faults += sum(len(row.faults()) for row in rows)
    print(f"{looked_at} kernels looked at, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
