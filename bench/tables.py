"""Write the tables in docs/ from bench/results/: `python -m bench.tables`; `--check` only says which would change.

A table stands in a document between `<!-- table: NAME -->` and `<!-- /table -->`. Nobody types numbers there: a test
holds the documents to what this makes of the CSV files.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from bench import ablations, registry, results
from bench.gpu import outcome

DOCS = Path(__file__).parents[1] / "docs"
_BLOCK = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- /table -->)", re.DOTALL)
Rows = list[dict[str, str]]


def markdown(columns: Sequence[str], left: int, rows: Iterable[Sequence[str]]) -> str:
    """A table whose first `left` columns are text and the others numbers."""
    rule = ["---"] * left + ["---:"] * (len(columns) - left)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (columns, rule, *rows))


def number(text: str) -> str:
    """Three digits, as far as the machine's noise lets them mean something."""
    value = float(text)
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:.{digits}f}"


def threads_of(rows: Rows) -> list[str]:
    """The numbers of threads, in order."""
    return list(dict.fromkeys(row["threads"] for row in rows))


def times(rows: Rows) -> str:
    """Median milliseconds of every contestant, ours in bold, and of the first call of a turn."""
    threads = threads_of(rows)
    heads = [cell for t in threads for cell in (f"{t} thread{'s' if t != '1' else ''}", "first call")]
    found = {(row["case"], row["provider"], row["threads"]): row for row in rows}
    lines, before = [], None
    for case, provider in dict.fromkeys((row["case"], row["provider"]) for row in rows):
        mine = [found[case, provider, t] for t in threads]
        name = f"**{provider}**" if mine[0]["kind"] == "ours" else provider
        cells = [number(row[key]) for row in mine for key in ("p50_ms", "first_ms")]
        lines.append(("" if case == before else case, name, mine[0]["agreement"], *cells))
        before = case
    return markdown(("case", "contestant", "result", *heads), 3, lines)


def goals(rows: Rows) -> str:
    """Per goal the fastest peer that it is about and how many times our time that takes, for each number of threads."""
    threads = threads_of(rows)
    lines = []
    for case, wanted in dict.fromkeys((row["case"], row["goals"]) for row in rows if row["goals"]):
        for goal in wanted.split():
            kind, least = goal.split(":")
            kinds = ("exact",) if kind == "exact" else ("exact", "close")
            peers, ratios = [], []
            for t in threads:
                among = [r for r in rows if r["case"] == case and r["threads"] == t and r["kind"] in kinds]
                best = min(among, key=lambda row: float(row["ratio"]))
                peers.append(best["provider"])
                ratios.append(f"{float(best['ratio']):.1f}")
            which = "that agrees to the bit" if kind == "exact" else "of all"
            lines.append((case, f"{least}x the fastest {which}", ", ".join(dict.fromkeys(peers)), " / ".join(ratios)))
    return markdown(("case", "goal", "that is", f"times, at {' / '.join(threads)} threads"), 3, lines)


def linear(rows: Rows) -> str:
    """Time per item and memory against the number of items."""
    by_size: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    for row in rows:
        by_size.setdefault((row["op"], row["items"]), {})[row["threads"]] = row
    lines = []
    for (op, items), mine in by_size.items():
        cells = [f"{float(row[key]):.2f}" for row in mine.values() for key in ("us_per_item", "over_smallest")]
        first = mine[min(mine)]
        memory = (f"{float(first['bare_us']):.2f}", *(f"{float(first[k]):.1f}" for k in _MEMORY))
        lines.append((op, f"{int(items):,}", *cells, *memory))
    heads = [cell for t in threads_of(rows) for cell in (f"{t} thread{'s' if t != '1' else ''}, us", "over smallest")]
    return markdown(("op", "items", *heads, "bare memory, us", "output, MiB", "beyond output, MiB"), 1, lines)


_MEMORY = ("output_mib", "beyond_output_mib")
_STAGES = ("parse", "geometry", "preprocess", "text", "image", "combine")


def reward(rows: Rows) -> str:
    """Seconds of a step of 128 completions, and how many times as fast as the ways that users have today."""
    seconds = {row["contestant"]: float(row["p50_s"]) for row in rows}
    wrong = {row["contestant"]: row["wrong"] for row in rows}
    lines = []
    for name, value in seconds.items():
        ratios = (seconds[way] / value for way in ("one at a time", "hand-written, cold"))
        shown = f"**{name}**" if name.startswith("dpad_fast guarded") else name
        guarded = seconds[f"dpad_fast guarded, {'images known' if name.endswith('images known') else 'cold'}"]
        cells = (*(f"{ratio:.1f}" for ratio in ratios), f"{value / guarded:.1f}", wrong[name])
        lines.append((shown, number(str(value)), f"{1000 * value / 128:.1f}", *cells))
    return markdown(("contestant", "s", "ms a completion", *_REWARD), 1, lines)


_REWARD = ("x one at a time", "x hand-written, cold", "times guarded's", "decisions wrong")


def reward_floor(rows: Rows) -> str:
    """The arithmetic alone at measured rates."""
    lines = [(r["products"], f"{float(r['gflops']):.0f}", *(f"{float(r[k]):.3f}" for k in _FLOOR)) for r in rows]
    return markdown(("products", "GFLOP/s", "cold, s", "images known, s"), 1, lines)


_FLOOR = ("cold_s", "known_s")


def reward_stages(rows: Rows) -> str:
    """Milliseconds of each stage, of the last turn."""
    lines = []
    for row in rows:
        if row["text_ms"]:
            lines.append((row["contestant"], *(f"{float(row[f'{stage}_ms']):.1f}" for stage in _STAGES)))
    return markdown(("contestant", *_STAGES), 1, lines)


def gpu_static(rows: Rows) -> str:
    """A row for each kernel; where architectures differ, their numbers one after the other."""
    groups: dict[tuple[str, str], Rows] = {}
    for row in rows:
        groups.setdefault((row["call"], row["kernel"]), []).append(row)
    lines = []
    for (call, kernel), mine in groups.items():
        merged = (" ".join(dict.fromkeys(row[key] for row in mine)) for key in _KERNEL)
        lines.append((call, f"`{kernel}`", *merged, *(mine[0][key] for key in _CALL)))
    return markdown((*_KERNEL_HEADS, "moved / least", "A100, us", "H100, us"), 2, lines)


_KERNEL = ("registers", "spilled", "shared", "warps", "widest")
_KERNEL_HEADS = ("call", "kernel", "registers", "spilled", "shared, bytes", "warps", "widest load, store")
_CALL = ("moved_over_least", "a100_us", "h100_us")


def reward_gpu(rows: Rows) -> str:
    """Milliseconds of a step on a GPU, and what it asked of it.

    Ratios are within a group, whose contestants took turns with each other. Results of the time before there were
    groups are of one, and have no columns of what a processor worked.
    """
    times = {(row.get("group"), row["contestant"], row["pictures"]): row["p50_ms"] for row in rows}
    later = [key for key in ("thread_ms", "process_ms", "collections") if key in rows[0]]
    grouped = "group" in rows[0]
    lines = []
    for row in rows:
        name = f"**{row['contestant']}**" if row["contestant"] == "dpad_fast guarded" else row["contestant"]
        guarded = times.get((row.get("group"), "dpad_fast guarded", row["pictures"]), "")
        ratio = f"{float(row['p50_ms']) / float(guarded):.2f}" if row["p50_ms"] and guarded else ""
        worked = (number(row[key]) if row[key] and key != "collections" else row[key] for key in later)
        middle = number(row["p50_ms"]) if row["p50_ms"] else ""
        who = (name, row["pictures"], *([row["group"]] if grouped else []))
        lines.append((*who, middle, row["turns"], ratio, *worked, *(row[key] for key in _REWARD_GPU)))
    who = ("contestant", "pictures", *(["group"] if grouped else []))
    keys = (key.replace("_", " ") for key in (*later, *_REWARD_GPU))
    return markdown((*who, "ms", "turns", "times guarded's", *keys), len(who), lines) + _day(rows)


_REWARD_GPU = ("wrong", "recomputed", "error", "launches", "kernels", "up", "down", "waits", "gpu_ms", "peak_mb")


def reward_gpu_stages(rows: Rows) -> str:
    """Milliseconds of each stage: ours on the host's clock, hand-written ones with a wait after each.

    Of a contestant in two groups they are those of the first.
    """
    lines: dict[tuple[str, str], tuple[str, ...]] = {}
    for row in rows:
        who = row["contestant"], row["pictures"]
        if row["text_ms"]:
            lines.setdefault(who, (*who, *(row[f"{stage}_ms"] for stage in _STAGES)))
    return markdown(("contestant", "pictures", *_STAGES), 2, lines.values())


def reward_host(rows: Rows) -> str:
    """Milliseconds of the host's part of a step on a GPU, against the hand-written step's in the same turns."""
    lines = []
    for row in rows:
        name = f"**{row['contestant']}**" if row["contestant"] == "dpad_fast guarded" else row["contestant"]
        times = (number(row[key]) for key in ("p50_ms", "least_ms", "process_ms"))
        stages = (row[f"{stage}_ms"] for stage in _STAGES)
        ratios = (row[f"{key}_of_hand_written"] for key in ("ms", "process_ms"))
        lines.append((name, row["pictures"], *times, *ratios, row["recomputed"], *stages))
    heads = ("contestant", "pictures", "ms", "least", "of processors", *_OF_HAND, "recomputed", *_STAGES)
    row = rows[0]
    threads = f"{row['threads']} thread{'s' if row['threads'] != '1' else ''}"
    made = f"{row['turns']} turns, {threads}, {row['device']}, torch {row['torch']}, {row['date']}"
    return markdown(heads, 2, lines) + f"\nHost only, no launch, no tower: not a time on a GPU. {made}.\n"


_OF_HAND = ("of hand-written's", "by processors")


def gpu(rows: Rows) -> str:
    """Microseconds of each op on a GPU: with an empty cache, without, and as a graph."""
    lines, before = [], None
    for row in rows:
        name = f"**{row['provider']}**" if row["kind"] == "ours" else row["provider"]
        cells = (number(row[key]) if row[key] else "" for key in ("p50_us", "warm_us", "graph_us"))
        case = f"{row['op']}: {row['case']}"
        lines.append(("" if case == before else case, name, row["agreement"] or row["note"], *cells, row["ratio"]))
        before = case
    return markdown(("case", "contestant", "result", "us", "cache warm", "as a graph", "times ours"), 3, lines) + _day(
        rows
    )


def _day(rows: Rows) -> str:
    """The machine and the day, as a line under a table."""
    row = rows[0]
    return f"\n{row['device']}, driver {row['driver']}, torch {row['torch']}, {row['date']}.\n"


def gpu_prediction(folder: Path) -> str:
    """The prediction, and what was measured."""
    return markdown(("what", "predicted", "measured", "", "why"), 5, outcome.beside(folder))


Make = Callable[[Rows], str]
TABLES: dict[str, tuple[str, Make]] = {  # name in a document: its CSV file, and what makes the table of it
    **{op: (op, times) for op in registry.OPS},
    **{f"{op}-goals": (op, goals) for op in registry.OPS},
    "linear": ("linear", linear),
    "reward": ("reward", reward),
    "reward-floor": ("reward-floor", reward_floor),
    "reward-stages": ("reward", reward_stages),
    "gpu-static": ("gpu-static", gpu_static),
    "reward-gpu": ("reward-gpu", reward_gpu),
    "reward-gpu-stages": ("reward-gpu", reward_gpu_stages),
    "reward-host": ("reward-host", reward_host),
    "gpu": ("gpu", gpu),
}
# Made of a run on a GPU, which there may not have been.
LATER = ("reward-gpu", "gpu")
_NOT_YET = "**Not measured yet.**\n"
_PREDICTION = "gpu-prediction"


def rewritten(text: str, folder: Path = results.FOLDER) -> str:
    """A document with its tables made anew.

    Raises:
        ValueError: it asks for a table that does not exist, or opens one that it does not close.
    """

    def fill(match: re.Match[str]) -> str:
        name = match[2]
        if name in ablations.BLOCKS:
            return f"{match[1]}{ablations.block(name, folder)}{match[3]}"
        if name == _PREDICTION:
            return f"{match[1]}{gpu_prediction(folder)}{match[3]}"
        if name not in TABLES:
            there = ", ".join((*TABLES, _PREDICTION, *ablations.BLOCKS))
            raise ValueError(f"no table is called {name!r}; there are {there}")
        source, make = TABLES[name]
        if source in LATER and not (folder / f"{source}.csv").is_file():
            return f"{match[1]}{_NOT_YET}{match[3]}"
        return f"{match[1]}{make(results.read(source, folder))}{match[3]}"

    if text.count("<!-- table:") != len(_BLOCK.findall(text)):
        raise ValueError("a table is opened and not closed by <!-- /table -->")
    return _BLOCK.sub(fill, text)


def main(arguments: list[str] | None = None) -> int:
    """Rewrite, or say what would change; 1 where a check finds something."""
    parser = argparse.ArgumentParser(prog="python -m bench.tables", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 where a table is out of date")
    options = parser.parse_args(arguments)
    stale = []
    for document in sorted(DOCS.glob("*.md")):
        text = document.read_text(encoding="utf-8")
        made = rewritten(text)
        if made != text:
            stale.append(document.name)
            if not options.check:
                document.write_text(made, encoding="utf-8")
    print(f"{'out of date' if options.check else 'rewritten'}: {', '.join(stale) or 'none'}")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
