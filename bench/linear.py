"""Does cost grow with the number of items and with nothing else? `python -m bench.linear`.

16 to 4,096 crops and 128 to 16,384 masks, in steps of four: time per item, and the memory that a call needs beyond its
output. Each size runs in a forked process of its own, whose peak (VmHWM) is taken before and after; times are medians.
The sizes take turns, several rounds, and the quickest median of each counts, because a shared machine is slower for a
while at a time: a size that met such a while would look as if it cost more.
The items of the smallest size are repeated, so that each costs the same whatever their number. `bare us` is what it
costs per item to get memory for the output from the operating system and to write it once: large blocks go back.
`read us`, for all pairs, is what it costs to read nothing but each mask's box, once: where masks no longer fit a cache,
that is the time of the memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from bench import results
from bench.cpu import preprocess, scenes

FORK = multiprocessing.get_context("fork")
CROPS = (16, 64, 256, 1024, 4096)
MASKS = (128, 512, 2048, 8192, 16384)
COLUMNS = (
    "op", "items", "threads", "us_per_item", "over_smallest", "bare_us", "read_us", "output_mib", "beyond_output_mib",
    "device",
)  # fmt: skip


class Work(NamedTuple):
    """A call on N items, the bytes of its output, and a call that only reads what it must."""

    call: Callable[[], Any]
    output: int
    read: Callable[[], Any] | None = None


def crops(n: int) -> Work:
    from dpad_fast.ops import roi_clip_preprocess

    boxes, index = ([values[i % 16] for i in range(n)] for values in (preprocess.BOXES, preprocess.INDEX))
    return Work(lambda: roi_clip_preprocess(preprocess.photographs(), boxes, index), n * 3 * 224 * 224 * 4)


def crops_into(n: int) -> Work:
    """The same into memory that the caller keeps."""
    from dpad_fast.ops import roi_clip_preprocess

    boxes, index = ([values[i % 16] for i in range(n)] for values in (preprocess.BOXES, preprocess.INDEX))
    out = torch.zeros(n, 3, 224, 224)
    return Work(lambda: roi_clip_preprocess(preprocess.photographs(), boxes, index, out=out), 0)


def truths() -> Any:
    return scenes.masks(1, 16)


def packed_pairs(n: int) -> Work:
    """All pairs of N packed masks with 16: the packed masks are there before."""
    from dpad_fast.ops import PackedMasks, mask_iou, mask_iou_matrix

    some = PackedMasks.from_dense(scenes.masks(0)).to_rle()
    masks = PackedMasks.from_rle([some[i % 128] for i in range(n)])
    against = PackedMasks.from_dense(truths())
    return Work(lambda: mask_iou_matrix(masks, against), n * 16 * 8, lambda: mask_iou(masks, masks))


def rle_pairs(n: int) -> Work:
    """The same from COCO's run lengths."""
    from dpad_fast import coco_mask
    from dpad_fast.ops import PackedMasks

    some = PackedMasks.from_dense(scenes.masks(0)).to_rle()
    rles, against = [some[i % 128] for i in range(n)], PackedMasks.from_dense(truths()).to_rle()
    return Work(lambda: coco_mask.iou(rles, against, [0] * 16), n * 16 * 8)


def polygons(n: int) -> Work:
    from dpad_fast.ops import rasterize_polygons

    some = scenes.blobs(0)
    outlines = [some[i % 128] for i in range(n)]
    return Work(
        lambda: rasterize_polygons(outlines, scenes.HEIGHT, scenes.WIDTH), n * scenes.HEIGHT * scenes.WIDTH // 8
    )


def against_one(n: int) -> Work:
    """IoU of N polygons with one of 16 masks each."""
    from dpad_fast.ops import PackedMasks, polygon_iou

    some, masks = scenes.blobs(0), PackedMasks.from_dense(truths())
    outlines, index = [some[i % 128] for i in range(n)], torch.arange(n) % 16
    return Work(lambda: polygon_iou(outlines, masks, mask_index=index), n * 8)


CASES: dict[str, tuple[Callable[[int], Work], tuple[int, ...]]] = {
    "roi_clip_preprocess, out=": (crops_into, CROPS),
    "roi_clip_preprocess": (crops, CROPS),
    "mask_iou_matrix, packed": (packed_pairs, MASKS),
    "coco_mask.iou, RLE": (rle_pairs, MASKS),
    "rasterize_polygons, packed": (polygons, MASKS),
    "polygon_iou": (against_one, MASKS),
}


def peak() -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def median_us(call: Callable[[], Any], n: int) -> float:
    """Per item, over 3 calls at least and 0.3 s."""
    runs: list[float] = []
    began = time.perf_counter()
    while len(runs) < 3 or (time.perf_counter() - began < 0.3 and len(runs) < 400):
        runs.append(seconds(call))
    return 1e6 * statistics.median(runs) / n


def one(name: str, n: int, threads: int) -> dict[str, float]:
    """In a fresh process: microseconds per item, bytes of output, and how far the peak rose beyond them."""
    torch.set_num_threads(threads)
    make, sizes = CASES[name]
    make(sizes[0]).call()  # what every process needs once, such as the threads' scratch
    call, output, read = make(n)
    before = peak()
    call()
    risen = peak() - before
    bare = statistics.median(seconds(lambda: np.full(output, 1, np.uint8)) for _ in range(3))
    found = {"us": median_us(call, n), "bare": 1e6 * bare / n, "output": output, "beyond": max(risen - output, 0)}
    return {**found, "read": 0.0 if read is None else median_us(read, n)}


def in_a_child(name: str, n: int, threads: int) -> dict[str, float]:
    ours, theirs = FORK.Pipe(duplex=False)
    child = FORK.Process(target=lambda: theirs.send(one(name, n, threads)))
    child.start()
    theirs.close()
    result: dict[str, float] = ours.recv()  # EOFError where the child failed: it has said why
    child.join()
    return result


def quickest(name: str, sizes: tuple[int, ...], threads: int, rounds: int) -> list[dict[str, float]]:
    """Per size the least of every number over the rounds; a peak is the most."""
    found = [[in_a_child(name, n, threads) for n in sizes] for _ in range(rounds)]
    merged = []
    for of_a_size in zip(*found, strict=True):
        least = {key: min(result[key] for result in of_a_size) for key in of_a_size[0]}
        merged.append({**least, "beyond": max(result["beyond"] for result in of_a_size)})
    return merged


def rows(threads: int, rounds: int) -> Iterator[dict[str, Any]]:
    device = results.device()
    for name, (_, sizes) in CASES.items():
        found = quickest(name, sizes, threads, rounds)
        smallest = found[0]["us"]
        for n, result in zip(sizes, found, strict=True):
            mebibytes = (result["output"] / 2**20, result["beyond"] / 2**20)
            numbers = (result["us"], result["us"] / smallest, result["bare"], result["read"], *mebibytes)
            head, tail = (name, n, threads), (round(number, 3) for number in numbers)
            yield dict(zip(COLUMNS, (*head, *tail, device), strict=True))


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.linear", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads (default: 1 2)")
    parser.add_argument("--rounds", type=int, default=6, help="how often the sizes take turns (default: 6)")
    args = parser.parse_args(arguments)
    if args.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {args.rounds}")
    table = Table(title="cost per item", title_justify="left")
    for column in COLUMNS[:-1]:
        table.add_column(column.replace("_", " "), justify="left" if column == "op" else "right")
    found = []
    for row in (row for threads in args.threads for row in rows(threads, args.rounds)):
        found.append(row)
        table.add_row(*(str(row[column]) for column in COLUMNS[:-1]))
    Console(width=120).print(table)
    worst = max(found, key=lambda row: row["over_smallest"])
    print(
        f"worst time per item over the smallest size's: {worst['over_smallest']:.2f} ({worst['op']}, {worst['items']})"
    )
    results.write("linear", found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
