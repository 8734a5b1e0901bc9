"""How fast `dpad-fast evaluate` and `score` work, and how their memory grows: `python -m bench.evaluate`.

1,000 predictions on 840 x 840 masks (goal: under 10 s on 2 cores, starting Python and torch counted), and 10,000 and
100,000 rows of a made-up set of 64 x 64 pictures (goal: flat memory). Each run is a process of its own; peak memory is
that of the process that reads and writes, and of the largest worker. `--command score` measures `score` with the terms
that need no encoder, `--parquet` files of Parquet in the place of JSONL.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table

# Printed by the child itself: the peak of its own memory, and of the largest process that it waited for.
_RUN = """
import resource, sys
from dpad_fast import cli
status = cli.main(sys.argv[1:])
for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
    print(resource.getrusage(who).ru_maxrss)
sys.exit(status)
"""


def write_rows(folder: Path, count: int, side: int, seed: int = 0) -> tuple[Path, Path]:
    """A JSONL of rows with polygons of twelve corners, all on one picture, and answers that are near the truth."""
    rng = random.Random(seed)
    Image.new("RGB", (side, side), (90, 120, 60)).save(folder / f"{side}.png")
    data, answers = folder / f"rows-{count}-{side}.jsonl", folder / f"answers-{count}-{side}.jsonl"
    with data.open("w") as rows, answers.open("w") as lines:
        for i in range(count):
            ring = [[rng.uniform(0.1, 0.9) * side, rng.uniform(0.1, 0.9) * side] for _ in range(12)]
            size = {"width": side, "height": side}
            row = {"id": f"row-{i}", "image": f"{side}.png", "query": "the field", "polygons": [ring], **size}
            row["mask"] = _mask(ring, side)
            rows.write(json.dumps(row) + "\n")
            near = [[round(x + rng.uniform(-2, 2)), round(y + rng.uniform(-2, 2))] for x, y in ring]
            text = f'<think>{"one word " * 40}</think><answer>{{"polygon": [{near}]}}</answer><caption>a</caption>'
            lines.write(json.dumps({"id": f"row-{i}", "completion": text}) + "\n")
    return data, answers


def _mask(ring: list[list[float]], side: int) -> dict[str, object]:
    import numpy as np

    from dpad_fast import coco_mask
    from dpad_fast.ops.polygons import rasterize_polygons

    drawn = rasterize_polygons([np.asarray(ring)], side, side, rule="opencv", out="dense").numpy().any(axis=0)
    coded = coco_mask.encode(np.asfortranarray(drawn, dtype=np.uint8))
    return {"size": list(map(int, coded["size"])), "counts": coded["counts"].decode()}


def _as_parquet(file: Path) -> Path:
    """The same rows as Parquet, in one row group, as writers leave it by default."""
    from pyarrow import json as arrow_json
    from pyarrow import parquet

    table = arrow_json.read_json(file)
    parquet.write_table(table, file.with_suffix(".parquet"), row_group_size=table.num_rows)
    return file.with_suffix(".parquet")


def measure(
    folder: Path, count: int, side: int, workers: int, command: str = "evaluate", parquet: bool = False
) -> tuple[float, float, float]:
    """Seconds, and MiB of the process and of its largest worker."""
    data, answers = write_rows(folder, count, side)
    if parquet:
        answers = _as_parquet(answers)
    where = ["--data", data, "--form", "rows", "--workers", workers, "--quiet"]
    if command == "score":
        given = ["--preset", "dpad", "--set", "terms=[think_format, answer_format, mask_iou]", "--set", "geometry=mask"]
        arguments = ["score", answers, *where, *given, "--out", folder / f"out{answers.suffix}"]
    else:
        arguments = ["evaluate", "--predictions", answers, *where, "--json", folder / "out.json"]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(done.stderr)
    own, other = (int(line) / 1024 for line in done.stdout.split()[-2:])
    return seconds, own, other


def main(arguments: list[str] | None = None) -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000], help="of 64 x 64 masks")
    parser.add_argument("--large", type=int, default=1_000, help="predictions on 840 x 840 masks; 0 for none")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--command", choices=("evaluate", "score"), default="evaluate")
    parser.add_argument("--parquet", action="store_true", help="predictions (and scores) in Parquet")
    args = parser.parse_args(arguments)
    cases = [(args.large, 840)] * bool(args.large) + [(count, 64) for count in args.rows]
    kind = "Parquet" if args.parquet else "JSONL"
    table = Table(title=f"dpad-fast {args.command} --workers {args.workers}, {kind}")
    for name in ("rows", "masks", "seconds", "rows/s", "MiB, reader", "MiB, worker", "bytes/row more"):
        table.add_column(name, justify="right")
    before: tuple[int, float] | None = None
    with tempfile.TemporaryDirectory() as folder:
        for count, side in cases:
            seconds, own, other = measure(Path(folder), count, side, args.workers, args.command, args.parquet)
            grown = ""
            if before is not None and side == 64:
                grown = f"{(own - before[1]) * 1024**2 / (count - before[0]):,.0f}"
            if side == 64:
                before = count, own
            speed = f"{count / seconds:,.0f}"
            table.add_row(f"{count:,}", f"{side}x{side}", f"{seconds:.1f}", speed, f"{own:.0f}", f"{other:.0f}", grown)
    Console().print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
