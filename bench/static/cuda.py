"""The CUDA C++ kernels for `bench.gpu_static`: read from the extension, where it was built with them."""

from __future__ import annotations

import re
from functools import lru_cache

from bench.static.code import Case, Row, tool, usage, widths

N, M, HEIGHT, WIDTH, VERTICES = 128, 16, 480, 640, 40
THREADS = {"MeasureBody": 512, "DrawWordsBody": 128, "DrawDenseBody": 128, "DrawCountsBody": 128, "JoinBody": 128}
RULES = ("coco", "opencv", "center")
Call = tuple[Case, tuple[str, ...]]  # and the bodies of its kernels


def calls() -> list[Call]:
    """128 masks of 640 x 480, 16 truths, and 128 polygons of 40 vertices."""
    return [*_masks(), *_polygons()]


def _masks() -> list[Call]:
    dense, bits = HEIGHT * WIDTH, HEIGHT * WIDTH // 8
    measured, pair = 5 * 8, 2 * 8  # area and box; intersection and union
    packed = N * (dense + bits + measured)
    pairs = (N + M) * bits + N * M * (pair + 8)
    tiles = N * bits * -(-M // 16) + M * bits * -(-N // 64)
    words = N * M * bits // 4  # of 32 bits, for each pair
    hidden = {"MatrixBody<nothing>": 0, "MatrixBody<one>": bits, "MatrixBody<each>": M * bits}
    loads = ("loads",)
    return [
        (Case("mask_pack", {"PackBody": ("loads", "stores"), "MeasureBody": loads}, packed + N * bits,
              packed + N * bits, packed), ("PackBody", "MeasureBody")),
        (Case("mask_unpack", {"UnpackBody": ("stores",)}, *[N * (dense + bits)] * 3), ("UnpackBody",)),
        (Case("mask_measure", {"MeasureBody": loads}, *[N * (bits + measured)] * 3), ("MeasureBody",)),
        # Each count is two instructions for 64 bits, and there are two counts for each 8 bytes of both masks.
        (Case("mask_dense_counts", {"DenseCountsBody": loads}, *[N * (2 * dense + pair)] * 3, N * dense // 8 * 4),
         ("DenseCountsBody",)),
        (Case("mask_packed_counts", {"PackedCountsBody": loads}, *[N * (2 * bits + pair)] * 3, N * bits // 8 * 4),
         ("PackedCountsBody",)),
        *((Case(f"mask_packed_counts, all pairs of {N} and {M}, ignore {name[11:-1]}", {name: loads},
                tiles + extra * -(-N // 64) + N * M * pair, pairs + extra, pairs + extra,
                words if extra == 0 else 2 * words), (name,)) for name, extra in hidden.items()),
    ]  # fmt: skip


def _polygons() -> list[Call]:
    from dpad_fast._native import extension as _extension

    bands = _extension.C.cuda_bands(HEIGHT, WIDTH)
    dense, bits, outline, extents = HEIGHT * WIDTH, HEIGHT * WIDTH // 8, VERTICES * 16, bands * 20
    found: list[Call] = []
    for rule in RULES:
        words, whole, counts = (f"Draw{kind}Body<{rule}>" for kind in ("Words", "Dense", "Counts"))
        least = N * (bits + outline + 40)
        found += [
            (Case(f"polygon_draw, {rule}", {words: ("stores",)}, least + N * (2 * extents + (bands - 1) * outline),
                  least + 2 * N * extents, least), (words, "JoinBody")),
            (Case(f"polygon_draw_dense, {rule}", {whole: ("stores",)}, N * (dense + bands * outline),
                  *[N * (dense + outline)] * 2), (whole,)),
            (Case(f"polygon_counts, {rule}", {counts: ("loads",)}, N * (bits + bands * outline + 16),
                  *[N * (bits + outline + 16)] * 2, N * bits // 8 * 4), (counts,)),
        ]  # fmt: skip
    return found


def why_not() -> str | None:
    """Why there is nothing to read, or None."""
    from dpad_fast._native import extension as _extension

    if hasattr(_extension.C, "cuda_pack"):
        return None
    return "the extension was built without CUDA kernels (no nvcc, or DPAD_FAST_CUDA=off), so they are left out"


def look_at(call: Call, architecture: int) -> list[Row]:
    """Read the machine code of a call's kernels."""
    case, bodies = call
    rows = []
    for body in bodies:
        line, code = _functions(architecture)[body]
        registers, spilled, shared = usage(line)
        if architecture >= 90 and shared:
            shared -= 1024  # what the system keeps of each block's is counted in since sm_90
        threads = THREADS.get(body.split("<")[0], 256)
        rows.append(Row(case, body, architecture, registers, spilled, shared, threads, widths("LDG", code),
                        widths("STG", code)))  # fmt: skip
    return rows


@lru_cache
def _functions(architecture: int) -> dict[str, tuple[str, str]]:
    """Resource usage and machine code of every body, by its name."""
    from dpad_fast._native import extension as _extension

    options = ("-arch", f"sm_{architecture}", str(_extension.C.__file__))
    lines = tool("cuobjdump", "-res-usage", *options)
    code = {_body(part): part for part in re.split(r"Function : ", tool("cuobjdump", "-sass", *options))[1:]}
    if not code:
        raise ValueError(f"the extension holds no machine code for sm_{architecture}")
    found = re.findall(r"Function (\S+):\s*\n\s*(REG:.*)", lines)
    return {_body(name): (line, code[_body(name)]) for name, line in found}


def _body(mangled: str) -> str:
    """`DrawWordsBody<coco>` from the mangled name of its kernel."""
    name = re.search(r"run_bodyINS0_\d+([A-Za-z]+Body)(?:ILNS0_\d+(Rule|Ignoring)E(\d)E)?", mangled)
    if name is None:
        raise ValueError(f"no body is named in {mangled[:80]!r}")
    if name[2] is None:
        return name[1]
    choices = RULES if name[2] == "Rule" else ("nothing", "one", "each")
    return f"{name[1]}<{choices[int(name[3])]}>"
