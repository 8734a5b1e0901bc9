"""What the compilers make of the GPU kernels, without a GPU: `python -m bench.gpu_static`.

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

from bench import static_cuda, static_triton
from bench.static_code import LIMITS, RATES, Case, Row

ARCHITECTURES = (80, 90, 100)


def gather(only: str) -> list[tuple[Case, Callable[[int], list[Row]]]]:
    """Every call whose name contains `only`, with what reads its kernels for an architecture."""
    found: list[tuple[Case, Callable[[int], list[Row]]]] = [
        (call[0], lambda architecture, c=call: static_triton.look_at(c, architecture))  # type: ignore[misc]
        for call in static_triton.calls()
    ]
    missing = static_cuda.why_not()
    if missing is None:
        found += [
            (call[0], lambda architecture, c=call: static_cuda.look_at(c, architecture))  # type: ignore[misc]
            for call in static_cuda.calls()
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


def table(case: Case, rows: list[Row]) -> str:
    """The same as rows of the table in docs/gpu.md: one for each kernel, with its numbers for each architecture."""
    lines = []
    for kernel in dict.fromkeys(row.kernel for row in rows):
        mine = [row for row in rows if row.kernel == kernel]
        columns = (
            [str(row.registers) for row in mine],
            [str(row.spilled) for row in mine],
            [str(row.shared) for row in mine],
            [f"{row.warps()}/{LIMITS[row.architecture][2]}" for row in mine],
            [f"{max(row.loads, default=0)}, {max(row.stores, default=0)}" for row in mine],
        )
        merged = " | ".join(" ".join(dict.fromkeys(column)) for column in columns)
        times = " | ".join(f"{1e6 * case.roof(name):.1f}" for name in RATES)
        lines.append(f"| {case.name} | `{kernel}` | {merged} | {case.moved / case.least:.2f} | {times} |")
    return "\n".join(lines)


HEAD = """\
| call | kernel | registers | spilled | shared, bytes | warps | widest load, store | moved / least | A100 us | H100 us |
|---|---|---|---|---|---|---|---|---|---|"""


def main(arguments: list[str] | None = None) -> int:
    """Compile, print, and fail on a fault."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_static", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--arch", type=int, nargs="*", default=ARCHITECTURES, choices=tuple(LIMITS))
    parser.add_argument("--only", default="", help="only calls whose name contains this")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/gpu.md")
    options = parser.parse_args(arguments)
    chosen = gather(options.only)
    if not chosen:
        parser.error(f"no call's name contains {options.only!r}")
    looked_at, faults = 0, 0
    if options.markdown:
        print(HEAD)
    for case, look in chosen:
        rows = [row for architecture in options.arch for row in look(architecture)]
        print(table(case, rows) if options.markdown else report(case, rows) + "\n", flush=True)
        looked_at += len(rows)
        faults += len(case.faults()) + sum(len(row.faults()) for row in rows)
    print(f"{looked_at} kernels looked at, {faults} faults", file=sys.stderr if options.markdown else sys.stdout)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
