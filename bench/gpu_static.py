"""Checks of the compiled GPU kernels, without a GPU: `python -m bench.gpu_static`.

Every Triton kernel is compiled as its launcher would compile it, for each architecture and dtype, and the CUDA C++
kernels are read from the extension. Their machine code says: registers, spills, shared memory, how many warps a
multiprocessor can hold, width of global loads and stores. The bytes of a call are compared with the least that any
implementation must move, and turned into a roofline time. That time is a prediction from data sheets, not a
measurement; nothing here runs on a GPU.

Exit status 1 where a kernel spills, where its main loads or stores are narrower than they can be, or where a call moves
more than 1.15 times the least bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from bench import results
from bench.static import cuda, triton
from bench.static.code import LIMITS, RATES, Case, Row

ARCHITECTURES = (80, 90, 100)


def gather(only: str) -> list[tuple[Case, Callable[[int], list[Row]]]]:
    """Every call whose name contains `only`, with what reads its kernels for an architecture."""
    found: list[tuple[Case, Callable[[int], list[Row]]]] = [
        (call[0], lambda architecture, c=call: triton.look_at(c, architecture))  # type: ignore[misc]
        for call in triton.calls()
    ]
    missing = cuda.why_not()
    if missing is None:
        found += [
            (call[0], lambda architecture, c=call: cuda.look_at(c, architecture))  # type: ignore[misc]
            for call in cuda.calls()
        ]
    else:
        print(f"CUDA C++: {missing}", file=sys.stderr)
    return [(case, look) for case, look in found if only in case.name]


def widths(row: Row) -> str:
    """`4 x 16; 2 x 8`: loads, then stores."""
    kinds = (row.loads, row.stores)
    return "; ".join(", ".join(f"{count} x {width}" for width, count in kind.items()) or "none" for kind in kinds)


def predicted(case: Case) -> str:
    return ", ".join(f"{name} {1e6 * case.roof(name):.1f} us" for name in RATES)


def report(case: Case, rows: list[Row]) -> str:
    """What was found in one call's kernels, and the call's prediction."""
    lines = [
        case.name,
        f"  moves {case.moved / 1e6:.2f} MB, {case.moved / case.least:.2f} x the least ({case.least / 1e6:.2f} MB); "
        f"blocks ask for {case.asked / 1e6:.2f} MB{''.join(f'  FAULT: {fault}' for fault in case.faults())}",
        f"  roofline, a prediction from data sheets and not a measurement: {predicted(case)}",
        f"  {'kernel':<29} {'sm':>4} {'regs':>5} {'spill':>5} {'shared':>6} {'warps':>6}  bytes per load; store",
    ]
    for row in rows:
        lines.append(
            f"  {row.kernel:<29} {row.architecture:>4} {row.registers:>5} {row.spilled:>5} {row.shared:>6} "
            f"{row.warps():>3}/{LIMITS[row.architecture][2]}  {widths(row)}"
            f"{''.join(f'  FAULT: {fault}' for fault in row.faults())}"
        )
    return "\n".join(lines)


def as_rows(case: Case, rows: list[Row]) -> list[dict[str, Any]]:
    """The same for bench/results/gpu-static.csv, of which docs/gpu.md has its table."""
    return [
        {
            "call": case.name,
            "kernel": row.kernel,
            "architecture": row.architecture,
            "registers": row.registers,
            "spilled": row.spilled,
            "shared": row.shared,
            "warps": f"{row.warps()}/{LIMITS[row.architecture][2]}",
            "widest": f"{max(row.loads, default=0)}, {max(row.stores, default=0)}",
            "moved_over_least": f"{case.moved / case.least:.2f}",
            **{f"{name.lower()}_us": f"{1e6 * case.roof(name):.1f}" for name in RATES},
        }
        for row in rows
    ]


def main(arguments: list[str] | None = None) -> int:
    """Compile, print, and fail on a fault."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_static", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--arch", type=int, nargs="*", default=ARCHITECTURES, choices=tuple(LIMITS))
    parser.add_argument("--only", default="", help="only calls whose name contains this")
    options = parser.parse_args(arguments)
    chosen = gather(options.only)
    if not chosen:
        parser.error(f"no call's name contains {options.only!r}")
    written: list[dict[str, Any]] = []
    faults = 0
    for case, look in chosen:
        rows = [row for architecture in options.arch for row in look(architecture)]
        print(report(case, rows) + "\n", flush=True)
        written += as_rows(case, rows)
        faults += len(case.faults()) + sum(len(row.faults()) for row in rows)
    print(f"{len(written)} kernels looked at, {faults} faults")
    if not options.only and tuple(options.arch) == ARCHITECTURES and cuda.why_not() is None:
        print(f"written: {results.write('gpu-static', written).relative_to(results.FOLDER.parents[1])}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
