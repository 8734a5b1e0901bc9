"""Rows of a training step with the faults that adapters must get through, and what each of them is called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpad_fast.testing import rewards as shared
from dpad_fast.types import Target

OFF_THE_PICTURE = "<box>(80,12),(140,52)</box><points>(90,24),(130,40)</points>"


@dataclass(frozen=True)
class FaultyRow:
    """One row.

    Attributes:
        fault: what is wrong with it; "" for nothing.
        completion: the answer.
        picture: the path of its picture.
        solution: its ground truth.
        reason: the code that it gets; None: any, or none.
        scored: whether it has a score.
    """

    fault: str
    completion: str
    picture: str
    solution: str
    reason: str | None
    scored: bool

    def label(self, **more: Any) -> dict[str, Any]:
        """The ground truth as frameworks without pictures carry it."""
        return {"solution": self.solution, "image": self.picture, "image_size": list(shared.SIZE), **more}


def faulty_rows(folder: Path) -> list[FaultyRow]:
    """A good row, two that a policy made bad, and four that the data set did; pictures are written to the folder."""
    good, broken, other = (str(folder / name) for name in ("good.png", "broken.png", "other-size.png"))
    shared.picture(1).save(good)
    Path(broken).write_bytes(b"\x89PNG and nothing behind it")
    shared.picture(2, (40, 90)).save(other)
    caption = shared.completion().rpartition("<caption>")[0]
    say = shared.completion
    return [
        FaultyRow("", say(), good, shared.SOLUTION, None, True),
        FaultyRow("malformed completion", "the cat is there", good, shared.SOLUTION, "no-tags", True),
        FaultyRow("no caption", caption, good, shared.SOLUTION, "no-tags", True),
        FaultyRow("missing picture", say(), str(folder / "nowhere.png"), shared.SOLUTION, "bad-image", False),
        FaultyRow("broken picture", say(), broken, shared.SOLUTION, "bad-image", False),
        FaultyRow("picture of another size", say(), other, shared.SOLUTION, "bad-size", False),
        FaultyRow("truth off the picture", say(), good, OFF_THE_PICTURE, "bad-target", False),
    ]


def expected_totals(scorer: Any, rows: Sequence[FaultyRow]) -> list[float | None]:
    """What each row's total must be to the bit, each scored alone; None where it has none."""
    found = []
    for row in rows:
        batch = scorer.score([row.completion], [target_of(row)], [row.picture], on_error="row")
        total = float(batch.total[0])
        found.append(total if row.scored else None)
        if (total == total) != row.scored or row.reason not in (None, batch.reasons[0]):
            raise AssertionError(f"{row.fault}: {total} {batch.reasons[0]} {batch.errors[0]}")
    return found


def target_of(row: FaultyRow) -> Target:
    """The ground truth, in pixels of a picture of `shared.SIZE`."""
    return Target.parse(row.solution, shared.SIZE)
