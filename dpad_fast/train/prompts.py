"""The prompts of a run: scenes of the shapes world, samples of any form of data, or rows of the `datasets` library."""

from __future__ import annotations

import shutil
import tempfile
import warnings
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpad_fast.data import forms, shapes
from dpad_fast.train.config import SCENES_PER_SEED, DataConfig, HeldOutConfig, TrainConfig
from dpad_fast.train.targets import COLUMN, target_text
from dpad_fast.train.templates import prompt_text
from dpad_fast.types import Sample, Target

if TYPE_CHECKING:
    from datasets import Dataset

_SHOWN = 5  # warnings of rows that were left out; the rest are counted


def turns(query: str, config: TrainConfig) -> list[dict[str, str]]:
    """The messages before an answer, the same in training, evaluation and inference.

    Args:
        query: the question.
        config: its `data.prompt` and `data.system_prompt`; a named template says in which space the answer is to be,
            which is `rewards.coordinates`.

    Returns:
        The system's turn, if there is one, and the user's, as plain texts. TRL puts the picture before the user's text;
        `with_picture` does it for a processor.
    """
    system = [{"role": "system", "content": config.data.system_prompt}] if config.data.system_prompt else []
    text = prompt_text(config.data.prompt, query, config.reward_config().coordinates)
    return [*system, {"role": "user", "content": text}]


def with_picture(messages: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Messages as a processor's chat template takes them: content as blocks, the picture before the user's text.

    Args:
        messages: see `turns`.

    Returns:
        New messages.
    """
    return [
        {
            "role": message["role"],
            "content": [
                *([{"type": "image"}] if message["role"] == "user" else []),
                {"type": "text", "text": message["content"]},
            ],
        }
        for message in messages
    ]


def make_dataset(config: TrainConfig) -> Dataset:
    """The prompts of a run, in the order in which they are used.

    Args:
        config: the run.

    Returns:
        A data set with the columns `prompt` (conversational), `image`, `solution` and `id`; with `target` in the place
        of `solution` (see `targets.py`) for the forms of data.

    Raises:
        ValueError: for data that is not there or cannot be read, or without the configured columns.
    """
    if config.data.kind == "shapes":
        count = config.steps * config.grpo.queries
        rows = shapes.dataset(config.data.seed, config.seed * SCENES_PER_SEED, count)
        if config.data.prompt == DataConfig().prompt and not config.data.system_prompt:
            return rows
        return rows.map(lambda row: {"prompt": turns(row["prompt"][0]["content"], config)})
    return _from_datasets(config) if config.data.kind == "dataset" else _from_form(config)


def with_steps(config: TrainConfig, rows: Dataset) -> TrainConfig:
    """The run with its number of steps, which `epochs` leaves to the data.

    Args:
        config: the run.
        rows: its prompts.

    Returns:
        The run; queries that fill no step at the end of a pass are left out of it, as TRL leaves them.

    Raises:
        ValueError: if the data does not fill one step.
    """
    per_pass = len(rows) // config.grpo.queries
    if not per_pass:
        raise ValueError(f"data.path has {len(rows)} prompts, fewer than grpo.queries {config.grpo.queries}")
    return replace(config, steps=max(1, round(config.epochs * per_pass))) if config.epochs else config


def samples(data: DataConfig | HeldOutConfig) -> Iterator[Sample]:
    """The samples of a form of data, one at a time.

    Args:
        data: where they are.

    Yields:
        Samples.

    Raises:
        ValueError: for data that is not there, or a row that cannot be read unless `bad_rows` is "skip".
    """
    columns = None
    if data.columns:
        from dpad_fast._row_columns import Columns

        try:
            columns = Columns(**data.columns)
        except TypeError as error:
            raise ValueError(f"columns: {error}") from None
    left_out: list[str] = []
    skips = isinstance(data, DataConfig) and data.bad_rows == "skip"
    yield from forms.load(
        data.path,
        data.kind or None,
        columns=columns,
        split=data.split or None,
        images=data.images or None,
        limit=data.limit,
        on_error=left_out.append if skips else None,
    )
    for message in left_out[:_SHOWN]:
        warnings.warn(f"left out of the training data: {message}", RuntimeWarning, stacklevel=2)
    if len(left_out) > _SHOWN:
        warnings.warn(f"left out of the training data: {len(left_out)} rows in all", RuntimeWarning, stacklevel=2)


def _from_form(config: TrainConfig) -> Dataset:
    from datasets import Dataset, Features, Image, Value

    message = {"role": Value("string"), "content": Value("string")}
    columns = {"prompt": [message], "image": Image(), "id": Value("string"), COLUMN: Value("string")}
    needed = _needed(config)

    def rows() -> Iterator[dict[str, Any]]:
        for sample in samples(config.data):
            missing = [name for name in needed if not getattr(sample.target, name)]
            if missing:
                raise ValueError(
                    f"{config.data.path}: {sample.id}: its target has no {missing[0]}, which rewards need; give them "
                    "or a mask, or leave their terms out of rewards.terms"
                )
            image = str(sample.image) if isinstance(sample.image, Path) else sample.image
            text = target_text(sample.target)
            yield {"prompt": turns(sample.query, config), "image": image, "id": sample.id, COLUMN: text}

    # Rows go to a file as they come, so that a large data set takes no memory; the file goes when the run ends.
    folder = tempfile.mkdtemp(prefix="dpad-fast-prompts-")
    try:
        with _no_bars():
            made = Dataset.from_generator(rows, features=Features(columns), cache_dir=folder)
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        cause = error.__cause__  # `datasets` wraps what a generator raises
        if isinstance(cause, ValueError):
            raise ValueError(f"data: {cause}") from cause
        raise
    weakref.finalize(made, shutil.rmtree, folder, ignore_errors=True)
    return made


@contextmanager
def _no_bars() -> Iterator[None]:
    """Without the bars of `datasets`, which would stand among the lines of a run."""
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

    bars = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            enable_progress_bar()


def _needed(config: TrainConfig) -> list[str]:
    """Fields that every target must have for the rewards of a run; a missing one is known before the first step."""
    rewards = config.reward_config()
    fields = {"iou": "box", "box_l1": "box", "point_l1": "points", "accuracy": "objects"}
    found = [fields[term] for term in rewards.terms if term in fields]
    if rewards.needs_encoder and rewards.region == "box" and rewards.answer != "objects":
        found.append("box")
    return list(dict.fromkeys(found))


def _from_datasets(config: TrainConfig) -> Dataset:
    from datasets import Dataset, load_dataset, load_from_disk

    data = config.data
    on_disk = any((Path(data.path) / name).is_file() for name in ("dataset_dict.json", "state.json"))
    rows = load_from_disk(data.path) if on_disk else load_dataset(data.path)
    if not isinstance(rows, Dataset):
        split = data.split or "train"
        if split not in rows:
            raise ValueError(f"data.split is {split!r:.80}; {data.path} has {', '.join(rows)}")
        rows = rows[split]
    for name in (data.question, data.solution, data.image):
        if name not in rows.column_names:
            raise ValueError(f"data.path {data.path} has no column {name!r:.80}; it has {', '.join(rows.column_names)}")
    if data.limit:
        rows = rows.select(range(min(data.limit, len(rows))))

    def turn(row: dict[str, Any], index: int) -> dict[str, Any]:
        return {
            "prompt": turns(str(row[data.question]), config),
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
