"""Hostile completions through the scorer, one by one: exceptions, numbers that are not finite, the CPU time of each.

Run as `python -m bench.hostile --count 10000`. Every hundredth completion is blown up to a megabyte. The times are of
the whole scorer, with a tiny CLIP; nothing here decides a test.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time

from rich.console import Console
from rich.table import Table

import dpad_fast as df
from dpad_fast.testing import rewards as shared

MEGABYTE = 1 << 20
PRESETS = ("dpad", "dpad-released", "seg-zero", "vision-reasoner")


def completions(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    texts = []
    for i in range(count):
        text = shared.hostile(rng)
        if i % 100 == 99:
            piece = rng.choice(
                ("<think>", "{", "{}", "</think>", "<answer>", "<caption>", "[", " ", "x", "x ", "9", "\n")
            )
            place = rng.randrange(len(text) + 1)
            text = text[:place] + piece * (MEGABYTE // len(piece)) + text[place:]
        texts.append(text)
    return texts


def main(arguments: list[str] | None = None) -> int:
    """Score, count, print; 1 where a completion raised or its reward is not finite."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.hostile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    texts = completions(args.count, args.seed)
    encoder = df.ClipEncoder.from_transformers(*shared.tiny_clip())
    objects = ((tuple(map(float, (20, 12, 64, 52))), (30.0, 24.0)),)
    target = df.Target(box=(20, 12, 64, 52), points=((30, 24), (50, 40)), image_size=shared.SIZE, objects=objects)
    table = Table(title=f"{args.count} hostile completions, CPU milliseconds each")
    for name in ("preset", "exceptions", "not finite", "median", "p99", "largest", "characters of it", "over 50 ms"):
        table.add_column(name, justify="right")
    faults = 0
    for preset in PRESETS:
        scorer = df.RewardScorer(df.RewardConfig.preset(preset), encoder)
        scorer.score([shared.completion()], [target], [shared.picture()])  # embeds the image
        picture = shared.picture()
        taken, raised, bad = [], 0, 0
        for text in texts:
            began = time.process_time()
            try:
                batch = scorer.score([text], [target], [picture])
            except Exception as error:
                raised += 1
                print(f"{preset}: {type(error).__name__}: {error}: {text[:200]!r}")
                continue
            taken.append((1000 * (time.process_time() - began), len(text)))
            bad += not math.isfinite(float(batch.total[0]))
        faults += raised + bad
        taken.sort()
        largest, length = taken[-1]
        numbers = [f"{taken[len(taken) // 2][0]:.2f}", f"{taken[len(taken) * 99 // 100][0]:.2f}", f"{largest:.1f}"]
        late = sum(milliseconds > 50 for milliseconds, _ in taken)
        table.add_row(preset, str(raised), str(bad), *numbers, str(length), str(late))
    Console(width=120).print(table)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
