"""The samples that records are about: picture, query and ground truth, from the record, from data, or drawn again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpad_fast import coco_mask
from dpad_fast.evaluate.results import Row, Series, box_of, is_scene, points_of
from dpad_fast.rewards import RewardConfig
from dpad_fast.types import BoolMask, Sample, Target

if TYPE_CHECKING:
    from dpad_fast.train.config import TrainConfig


@dataclass
class Lookup:
    """Where to look for the samples of records.

    Attributes:
        data: a file or folder of any form, or None.
        form: its form, or None to find out.
        folders: that relative picture paths of records may start from.
        notes: what could not be read, for the user; filled while looking.
    """

    data: str | None = None
    form: str | None = None
    folders: Sequence[Path] = (Path(),)
    notes: list[str] = field(default_factory=list)

    def find(self, series: Sequence[Series], wanted: Iterable[str]) -> Iterator[Sample]:
        """The samples of some ids, each once, in bounded memory.

        Args:
            series: records that the ids are of.
            wanted: ids.

        Yields:
            Samples, in no particular order; with what is known: `image` may be None, the target may be empty. Ids of
            which nothing is known are left out.

        Raises:
            ValueError: `data` cannot be read, or a record's truth is not as it should be; names the id.
        """
        missing = dict.fromkeys(wanted)
        rows = _first_rows(series, missing)
        if self.data is not None:
            yield from self._of_data(missing)
        for name in [name for name in missing if name in rows and _knows(rows[name])]:
            del missing[name]
            yield self._of_record(rows[name])
        for config in {id(one.config): one.config for one in series if one.config is not None}.values():
            yield from self._of_run(config, missing)
        for name in [name for name in missing if is_scene(name)]:
            from dpad_fast.data import shapes

            yield shapes.from_id(name)

    def _of_data(self, missing: dict[str, None]) -> Iterator[Sample]:
        from dpad_fast.data import forms

        for sample in forms.load(self.data, self.form, on_error=self.notes.append):
            if sample.id in missing:
                del missing[sample.id]
                yield sample
            if not missing:
                return

    def _of_run(self, values: Mapping[str, Any], missing: dict[str, None]) -> Iterator[Sample]:
        """What the run was measured on, where it still is there."""
        config = config_of(values)
        if not missing or config is None or not config.evaluation.data.path:
            return
        from dpad_fast.train.prompts import samples

        try:
            for sample in samples(config.evaluation.data):
                if sample.id in missing:
                    del missing[sample.id]
                    yield sample
        except (ValueError, OSError) as error:
            self.notes.append(f"{config.evaluation.data.path} cannot be read, so pictures are missing: {error}")

    def _of_record(self, row: Row) -> Sample:
        truth = row.get("truth") or {}
        try:
            mask = decode_mask(truth.get("mask"))
            box, points = box_of(truth.get("box")), points_of(truth.get("points"))
            target = Target(
                box=None if box is None else (box[0], box[1], box[2], box[3]),
                points=((points[0][0], points[0][1]), (points[1][0], points[1][1])) if len(points) == 2 else None,
                mask=mask,
                objects=_objects(row),
            )
        except ValueError as error:
            raise ValueError(f"{row['id']}: truth: {error}") from None
        query = row.get("query")
        return Sample(row["id"], self._picture(row), query if isinstance(query, str) else "", target)

    def _picture(self, row: Row) -> Any:
        path = row.get("image")
        if not isinstance(path, str) or not path:
            return None
        for folder in self.folders:
            place = os.path.join(folder, path)
            if os.path.isfile(place):
                return place
        self.notes.append(f"{row['id']}: picture {path!r:.200} is not there")
        return None


def _first_rows(series: Sequence[Series], wanted: Mapping[str, None]) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for one in series:
        for row in one.rows:
            name = row["id"]
            if name in wanted and (name not in found or (_knows(row) and not _knows(found[name]))):
                found[name] = row
    return found


def _knows(row: Row) -> bool:
    """Whether a record says what it is about; those of training do not."""
    return bool(row.get("truth") or row.get("image"))


def _objects(row: Row) -> tuple[Any, ...]:
    """The true objects of a record that has several; none where one of them lacks its point."""
    boxes, points = row.get("truth_boxes"), row.get("truth_points")
    if not isinstance(boxes, list) or not isinstance(points, list) or len(boxes) != len(points):
        return ()
    return tuple(zip(boxes, points, strict=True))


def decode_mask(value: Any) -> BoolMask | None:
    """A mask of run lengths.

    Args:
        value: {"size": [H, W], "counts": text or list}, or None.

    Returns:
        bool [H, W], or None.

    Raises:
        ValueError: it is malformed.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping) or "size" not in value or "counts" not in value:
        raise ValueError('mask must be {"size": [H, W], "counts": ...}')
    if isinstance(value["counts"], list):
        value = coco_mask.frPyObjects([value], *value["size"])[0]
    mask: BoolMask = coco_mask.decode(value).astype(bool)
    return mask


def config_of(values: Mapping[str, Any]) -> TrainConfig | None:
    """A run's configuration; None where this version does not know it any more."""
    from dpad_fast.train.config import from_dict

    try:
        return from_dict(values)
    except (ValueError, TypeError):
        return None


def judge_of(series: Series) -> RewardConfig:
    """How the texts of a series were read: by the run's judge, else as `dpad` in the picture's pixels.

    Args:
        series: records of a run, or anybody's.

    Returns:
        The judge's configuration, with `mask_iou` where the masks that were measured are those of the run's rewards.
    """
    config = None if series.config is None else config_of(series.config)
    if config is None or config.measures_scenes:
        return RewardConfig.preset("dpad")
    from dpad_fast.evaluate.policies import judge_config, segmenter_name

    judging, mine = judge_config(config), config.reward_config()
    if mine.segmenter is None or judging.segmenter is not None or segmenter_name(config, judging) != mine.segmenter:
        return judging
    terms = (*judging.terms, "mask_iou")
    return replace(judging, terms=terms, segmenter=mine.segmenter, mask_threshold=mine.mask_threshold)
