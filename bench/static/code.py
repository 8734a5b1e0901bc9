"""Facts that `bench.gpu_static` reads from any compiler's machine code: registers, spills, shared memory, widths."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

# Per multiprocessor: registers, bytes of shared memory, warps, thread blocks (CUDA programming guide).
LIMITS = {
    80: (65536, 163 * 1024, 64, 32), 86: (65536, 99 * 1024, 48, 16), 89: (65536, 99 * 1024, 48, 24),
    90: (65536, 227 * 1024, 64, 32), 100: (65536, 227 * 1024, 64, 32), 120: (65536, 99 * 1024, 48, 24),
}  # fmt: skip
# Bytes per second, and population counts per second (16 a clock on each multiprocessor): the 80 GB SXM data sheets.
RATES = {"A100": (2.039e12, 16 * 108 * 1.41e9), "H100": (3.35e12, 16 * 132 * 1.98e9)}
MOST_MOVED = 1.15  # bytes moved over the least possible


@dataclass(frozen=True)
class Case:
    """One call whose kernels are looked at.

    Attributes:
        name: op and what is special about the call.
        wide: kernels whose main loads or stores must be 16 bytes wide, with which of the two ("loads", "stores").
        asked: bytes that all thread blocks ask for and write, each block counting what it reads once. What several
            blocks read comes from the level 2 cache after the first.
        moved: bytes that go to or from memory: every input and output once, and what one kernel leaves for the next
            once written and once read.
        least: bytes that any implementation must read and write once.
        popcounts: population counts of 32 bits; where they take longer than the bytes, they are the roof.
    """

    name: str
    wide: dict[str, tuple[str, ...]]
    asked: int
    moved: int
    least: int
    popcounts: int = 0

    def roof(self, gpu: str) -> float:
        """Seconds that the call takes at the very least, by data sheet."""
        rate, counts = RATES[gpu]
        return max(self.least / rate, self.popcounts / counts)

    def faults(self) -> list[str]:
        """Why this call does not pass, whatever its machine code."""
        ratio = self.moved / self.least
        return [f"moves {ratio:.2f} times the least bytes, above {MOST_MOVED}"] if ratio > MOST_MOVED else []


@dataclass(frozen=True)
class Row:
    """What was found in one kernel."""

    case: Case
    kernel: str
    architecture: int
    registers: int
    spilled: int
    shared: int
    threads: int
    loads: dict[int, int] = field(default_factory=dict)
    stores: dict[int, int] = field(default_factory=dict)

    def warps(self) -> int:
        """Warps that fit on a multiprocessor, by registers (given to a warp in 256s), shared memory and blocks."""
        registers, shared, most, blocks = LIMITS[self.architecture]
        warps = self.threads // 32
        per_warp = -(-self.registers * 32 // 256) * 256
        by_registers = registers // per_warp // warps
        return min(by_registers, shared // (self.shared + 1024), most // warps, blocks) * warps

    def faults(self) -> list[str]:
        """Why this kernel does not pass."""
        found = [f"{self.spilled} bytes spilled"] if self.spilled else []
        for kind in self.case.wide.get(self.kernel, ()):
            if 16 not in getattr(self, kind):
                found.append(f"no 16-byte {kind}")
        return found


def tool(name: str, *arguments: str) -> str:
    """What one of NVIDIA's tools, which come with Triton, prints."""
    import triton.backends.nvidia

    path = Path(triton.backends.nvidia.__file__).parent / "bin" / name
    return subprocess.run([str(path), *arguments], check=True, capture_output=True, text=True).stdout


def usage(text: str) -> tuple[int, int, int]:
    """Registers, bytes of stack and local memory, and bytes of shared memory, from a line of cuobjdump."""
    return _number("REG", text), _number("STACK", text) + _number("LOCAL", text), _number("SHARED", text)


def _number(name: str, text: str) -> int:
    found = re.search(rf"\b{name}:(\d+)", text)
    if found is None:
        raise ValueError(f"{name} is not in what cuobjdump printed: {text!r}")
    return int(found[1])


def widths(instruction: str, code: str) -> dict[int, int]:
    """How many instructions move how many bytes per thread."""
    counts: Counter[int] = Counter()
    for modifiers in re.findall(rf"\b{instruction}((?:\.\w+)+)", code):
        parts = modifiers.split(".")
        bits = next((int(part) for part in parts if part in ("64", "128", "256")), None)
        byte = next((int(part[1:]) // 8 for part in parts if re.fullmatch(r"[US](8|16)", part)), None)
        counts[bits // 8 if bits else byte or 4] += 1
    return dict(sorted(counts.items(), reverse=True))
