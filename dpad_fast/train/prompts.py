"""The prompts of a run: scenes of the shapes world, or the rows of a data set from `datasets`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpad_fast.data import shapes
from dpad_fast.train.config import SCENES_PER_SEED, TrainConfig
from dpad_fast.types import Target

if TYPE_CHECKING:
    from datasets import Dataset


def make_dataset(config: TrainConfig) -> Dataset:
    """The prompts of a run, in the order in which they are used.

    Args:
        config: the run.

    Returns:
        A data set with the columns `prompt` (conversational), `image`, `solution` and `id`.

    Raises:
        ValueError: for a data set without the configured columns.
    """
    data = config.data
    if data.kind == "shapes":
        count = config.steps * config.grpo.queries
        return shapes.dataset(data.seed, config.seed * SCENES_PER_SEED, count)
    from datasets import Dataset, load_dataset, load_from_disk

    rows = load_from_disk(data.path) if Path(data.path).is_dir() else load_dataset(data.path)
    if not isinstance(rows, Dataset):
        if data.split not in rows:
            raise ValueError(f"data.split is {data.split!r:.80}; {data.path} has {', '.join(rows)}")
        rows = rows[data.split]
    for name in (data.question, data.solution, data.image):
        if name not in rows.column_names:
            raise ValueError(f"data.path {data.path} has no column {name!r:.80}; it has {', '.join(rows.column_names)}")
    if data.limit:
        rows = rows.select(range(min(data.limit, len(rows))))

    def turn(row: dict[str, Any], index: int) -> dict[str, Any]:
        text = data.prompt.replace("{question}", str(row[data.question]))
        return {
            "prompt": [{"role": "user", "content": text}],
            "image": row[data.image],
            "solution": row[data.solution],
            "id": str(row.get(data.id, index)),
        }

    return rows.map(turn, with_indices=True, remove_columns=rows.column_names)


@lru_cache(maxsize=4096)
def _target(identifier: str) -> Target:
    return shapes.from_id(identifier).target


def scene_target(row: Mapping[str, Any]) -> Target:
    """The full target of a scene: mask and other boxes too, which the solution text does not hold.

    Args:
        row: a row of the shapes world; its `id` is read.

    Returns:
        The target.
    """
    return _target(row["id"])
