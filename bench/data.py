"""What it costs to load a set in COCO's and in RefCOCO's form: `python -m bench.data`.

Makes a set in a temporary folder: pictures of 640 x 480, each with five annotations and one expression, whose outlines
are rough circles. Every sample is drawn (mask, box, two points) and dropped. Each form is read in a forked process of
its own. `CPU s` is the user and system time of that process; memory is its peak (VmHWM) beyond what it had before,
over the size of the annotation file.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import pickle
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFilter
from rich.console import Console
from rich.table import Table

from bench.linear import peak
from dpad_fast.data import forms

FORK = multiprocessing.get_context("fork")
WIDTH, HEIGHT, PICTURES = 640, 480, 8  # of so many different ones all others are copies


class Cost(NamedTuple):
    """Of one form: samples, seconds by the clock and of CPU, peak memory in bytes beyond the beginning."""

    samples: int
    wall: float
    cpu: float
    memory: int


def make(folder: Path, rows: int, radius: int, vertices: int, seed: int = 0) -> None:
    """Writes both sets over the same pictures: `coco.json`, and RefCOCO's in `refcoco/`."""
    rng = random.Random(seed)
    names = _pictures(folder / "images", rows, rng)
    annotations = [_annotation(5 * i + k, i, rng, radius, vertices) for i in range(rows) for k in range(5)]
    content: dict[str, Any] = {
        "images": [{"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT} for i, name in enumerate(names)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "thing"}],
    }
    refs = [
        {
            "ref_id": i, "image_id": i, "ann_id": 5 * i, "split": "train", "category_id": 1, "sent_ids": [i],
            "sentences": [{"sent_id": i, "sent": f"thing {i}", "raw": f"thing {i}", "tokens": ["thing", str(i)]}],
        }
        for i in range(rows)
    ]  # fmt: skip
    (folder / "refcoco").mkdir()
    (folder / "refcoco" / "instances.json").write_text(json.dumps(content))
    (folder / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(refs, 2))
    for i in range(rows):
        annotations[5 * i]["expressions"] = [f"thing {i}"]
    (folder / "coco.json").write_text(json.dumps(content))


def _pictures(folder: Path, rows: int, rng: random.Random) -> list[str]:
    folder.mkdir(parents=True)
    names = [f"{i:012d}.jpg" for i in range(rows)]
    for i, name in enumerate(names):
        if i < PICTURES:
            noise = np.random.default_rng(rng.randrange(1 << 30)).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2)).save(folder / name, quality=90)
            continue
        try:
            os.link(folder / names[i % PICTURES], folder / name)
        except OSError:  # a file system without links
            shutil.copyfile(folder / names[i % PICTURES], folder / name)
    return names


def _annotation(number: int, picture: int, rng: random.Random, radius: int, vertices: int) -> dict[str, Any]:
    x, y = rng.uniform(radius, WIDTH - radius), rng.uniform(radius, HEIGHT - radius)
    turns = [2 * math.pi * k / vertices for k in range(vertices)]
    outline = [
        round(at, 2)
        for turn, reach in ((turn, radius * rng.uniform(0.8, 1.2)) for turn in turns)
        for at in (x + reach * math.cos(turn), y + reach * math.sin(turn))
    ]
    outline = [min(max(at, 0.0), float((WIDTH, HEIGHT)[i % 2])) for i, at in enumerate(outline)]
    left, top = min(outline[0::2]), min(outline[1::2])
    box = [left, top, round(max(outline[0::2]) - left, 2), round(max(outline[1::2]) - top, 2)]
    return {
        "id": number, "image_id": picture, "category_id": 1, "iscrowd": 0, "bbox": box, "area": box[2] * box[3],
        "segmentation": [outline],
    }  # fmt: skip


def measure(path: Path, form: str) -> Cost:
    """Reads a set to its end, in a process of its own."""
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_read, args=(path, form, sender))
    process.start()
    sender.close()
    try:
        return Cost(*receiver.recv())
    except EOFError:
        raise SystemExit(f"reading {path} failed; see above") from None
    finally:
        process.join()


def _read(path: Path, form: str, sender: Any) -> None:
    before, began, cpu = peak(), time.perf_counter(), time.process_time()
    samples = sum(1 for _ in forms.load(path, form))
    sender.send((samples, time.perf_counter() - began, time.process_time() - cpu, peak() - before))


def main(arguments: list[str] | None = None) -> int:
    """Make the sets, read them, print; 1 where a row is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--radius", type=int, nargs="+", default=[20, 50, 100], help="of the objects, in pixels")
    parser.add_argument("--vertices", type=int, default=40, help="of each outline")
    args = parser.parse_args(arguments)
    table = Table(title=f"{args.rows} rows, 5 annotations each, read to the end")
    for name in ("form", "radius", "file MB", "wall s", "CPU s", "us a row", "peak MB", "peak / file"):
        table.add_column(name, justify="left" if name == "form" else "right")
    missing = 0
    for radius in args.radius:
        with tempfile.TemporaryDirectory() as folder:
            # In a process of its own: what it leaves behind would be memory that reading finds already there.
            maker = FORK.Process(target=make, args=(Path(folder), args.rows, radius, args.vertices))
            maker.start()
            maker.join()
            coco, refcoco = Path(folder) / "coco.json", Path(folder) / "refcoco"
            for form, path, file in (("coco", coco, coco), ("refcoco", refcoco, refcoco / "instances.json")):
                cost, size = measure(path, form), file.stat().st_size
                missing += cost.samples != args.rows
                cells = (size / 1e6, cost.wall, cost.cpu, cost.cpu * 1e6 / args.rows, cost.memory / 1e6)
                shown = [f"{value:.{digits}f}" for value, digits in zip(cells, (1, 2, 2, 0, 0), strict=True)]
                table.add_row(form, str(radius), *shown, f"{cost.memory / size:.1f}")
    Console(width=100).print(table)
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
