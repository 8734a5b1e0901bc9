"""Where the time of a step goes on a GPU: `python -m bench.gpu.profiles`, ours and a hand-written step.

For each the counts of `bench.reward.counts`, the kernels that took longest, and what the host did meanwhile.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch

from bench.gpu.clocks import DEVICES
from bench.reward import counts
from bench.reward import work as ways
from bench.reward.gpu import Pictures, model_of, prepare, work_of
from bench.reward.gpu_ways import Clip, Entry, hand_written, ours

ROWS = 20


def entries(clip: Clip, device: torch.device) -> list[Entry]:
    """Ours in every form, and the hand-written step that is hardest to beat."""
    written = hand_written(clip, device, torch.float16)
    return [*ours(clip, device, "guarded"), next(entry for entry in written if "GPU pixels" in entry.name)]


def profile(entry: Entry, work: ways.Work, device: torch.device) -> tuple[dict[str, Any], str]:
    """Counts of the second call, and the tables of its profile."""
    for _ in range(2):
        prepare(entry.way, work)
        entry.way(work)
    prepare(entry.way, work)
    if device.type == "cuda":
        found, seen = counts.profiled(lambda: entry.way(work))
        keys = ("self_cuda_time_total", "self_cpu_time_total")
    else:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
            entry.way(work)
        found, keys = {}, ("self_cpu_time_total",)
    averages = seen.key_averages()
    return found, "\n".join(averages.table(sort_by=key, row_limit=ROWS, max_name_column_width=70) for key in keys)


def main(arguments: list[str] | None = None) -> int:
    """Prints the profiles; 2 where there is no GPU."""
    about = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.profiles", description=about)
    parser.add_argument("--device", choices=DEVICES, default="cuda", help="cpu rehearses (default: cuda)")
    parser.add_argument("--queries", type=int, default=16, help="queries of a step (%(default)s)")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, to rehearse")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("bench.gpu.profiles: torch finds no GPU; nothing was profiled", file=sys.stderr)
        return 2
    clip = Clip(*model_of(options.tiny))
    pictures = [ways.photograph(i) for i in range(options.queries)]
    work = work_of(options.tiny)(pictures, options.queries * ways.GROUP, seed=0)
    forms = Pictures(work)
    for entry in entries(clip, device):
        found, tables = profile(entry, forms.of(work, entry.pictures), device)
        print(f"== {entry.name} ({entry.pictures}): {' '.join(f'{key} {value}' for key, value in found.items())}")
        print(tables)
    return 0


if __name__ == "__main__":
    sys.exit(main())
