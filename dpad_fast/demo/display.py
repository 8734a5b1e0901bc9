"""Progress of the demo: a live table in a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dpad_fast.terminal import printable, say

if TYPE_CHECKING:
    from rich.table import Table

    from dpad_fast.demo.jobs import Job

STAGES = {
    "make": "teaching",
    "before": "warm start",
    "train": "training",
    "after": "measuring",
}  # short: a terminal may have 80 columns


class PlainDisplay:
    """One line per event, and every tenth of a stage; for logs and pipes."""

    def __init__(self) -> None:
        self._tenths: dict[tuple[str, str], int] = {}

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def say(self, text: str) -> None:
        """Print something that is not progress."""
        say(text)

    def started(self, job: Job) -> None:
        """Say that a process was started."""
        self.say(f"[{job.label}] started")

    def progressed(self, job: Job, line: Mapping[str, Any]) -> None:
        """Say where it is, at most ten times a stage."""
        key, tenth = (job.label, line["stage"]), 10 * line["done"] // max(1, line["of"])
        if tenth > self._tenths.get(key, 0):
            self._tenths[key] = tenth
            self.say(f"[{job.label}] {STAGES[line['stage']]} {line['done']}/{line['of']}{_metrics(line['metrics'])}")

    def ended(self, job: Job, seconds: float, skipped: bool) -> None:
        """Say that it ended, or was there already."""
        self.say(f"[{job.label}] " + ("was finished before" if skipped else f"done in {seconds:.0f} s"))

    def stopped(self, job: Job) -> None:
        """Say that it was ended before it was done."""
        self.say(f"[{job.label}] ended before it was done")


class LiveDisplay:
    """A table that follows every process, by rich."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console()
        self._rows: dict[str, dict[str, Any]] = {}
        self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=4, transient=False)

    def __enter__(self) -> LiveDisplay:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """Print something above the table."""
        self._console.print("\n".join(map(printable, text.split("\n"))), markup=False, highlight=False)

    def started(self, job: Job) -> None:
        """Add a row."""
        self._rows[job.label] = {"stage": "loading", "done": 0, "of": 1, "metrics": {}, "since": time.monotonic()}

    def progressed(self, job: Job, line: Mapping[str, Any]) -> None:
        """Update its row."""
        row = self._rows[job.label]
        if line["stage"] != row["stage"]:
            row |= {"from": line["done"] - 1, "since": time.monotonic()}
        row |= {"stage": line["stage"], "done": line["done"], "of": line["of"]}
        row["metrics"] = line["metrics"] or row["metrics"]

    def ended(self, job: Job, seconds: float, skipped: bool) -> None:
        """Mark its row."""
        row = self._rows.setdefault(job.label, {"metrics": {}})
        row |= {"stage": "kept" if skipped else f"done, {seconds:.0f} s", "done": 1, "of": 1}

    def stopped(self, job: Job) -> None:
        """Mark its row."""
        self._rows.setdefault(job.label, {"metrics": {}, "done": 0, "of": 1}).update(stage="ended")

    def _table(self) -> Table:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for name in ("run", "stage", "", "step", "tokens", "S1>S2", "IoU>.5", "left"):
            table.add_column(name, justify="left" if name in ("run", "stage", "") else "right", no_wrap=True)
        for label, row in self._rows.items():
            metrics = row["metrics"]
            numbers = [
                f"{metrics[key]:.{digits}f}" if key in metrics else ""
                for key, digits in (
                    ("completions/mean_length", 1),
                    ("dpad/s1_over_s2", 2),
                    ("rewards/iou/mean", 2),
                )
            ]
            stage = STAGES.get(row["stage"], row["stage"])
            bar = ProgressBar(total=row["of"], completed=row["done"], width=8)
            table.add_row(label, stage, bar, f"{row['done']}/{row['of']}", *numbers, _time_left(row))
        return table


def _time_left(row: Mapping[str, Any]) -> str:
    """Rough time to the end of the stage."""
    made = row["done"] - row.get("from", row["done"])
    if row["stage"] not in STAGES or made < 1:
        return ""
    seconds = (time.monotonic() - row["since"]) / made * (row["of"] - row["done"])
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


def _metrics(metrics: Mapping[str, float]) -> str:
    names = {"reward": "reward", "completions/mean_length": "tokens", "dpad/s1_over_s2": "S1>S2"}
    found = [f"{short} {metrics[key]:.2f}" for key, short in names.items() if key in metrics]
    return "  " + ", ".join(found) if found else ""


def make_display() -> PlainDisplay | LiveDisplay:
    """A live table where standard output is a terminal, else plain lines."""
    return LiveDisplay() if sys.stdout.isatty() else PlainDisplay()
