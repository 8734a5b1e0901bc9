"""One chunk of predictions against its samples: a plain record each, judged by every chosen protocol."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dpad_fast.cached import cached_property
from dpad_fast.evaluate import mask_files, readers
from dpad_fast.evaluate.protocols import PROTOCOLS, Areas, areas, judge
from dpad_fast.evaluate.readers import Reading, released
from dpad_fast.evaluate.tokenizers import tokenizer
from dpad_fast.model_size import model_size_for
from dpad_fast.rewards.spaces import in_pixels
from dpad_fast.segmenters import Segmenter, make_segmenter
from dpad_fast.types import BoolMask, Completion, Point, Sample, Size

MISSING = "missing"


@dataclass(frozen=True)
class Line:
    """One prediction: a completion or a mask.

    Attributes:
        place: "FILE:NUMBER", for messages.
        text: the completion, or None.
        mask: run lengths, a path, or the name of an array of the archive; or None.
        model_size: (width, height) that the completion's coordinates refer to, where the line says it.
    """

    place: str
    text: str | None = None
    mask: Any = None
    model_size: Size | None = None


@dataclass(frozen=True)
class Item:
    """A sample with its predictions; none where nobody answered. `later` is as in `protocols.judge`."""

    sample: Sample
    lines: tuple[Line, ...]
    later: bool = False


@dataclass(frozen=True)
class Settings:
    """The settings of a measuring process: plain values, so that they can be pickled.

    Attributes:
        format: of `readers.FORMATS`.
        segmenter: a name, or `module:function`.
        protocols: names; the first is the one of a record's `iou`.
        model_size: (width, height) that answers refer to, or None for the format's own.
        processor: folder or name of the processor that says it, or None.
        resize: masks of another size than the truth are resized.
        encoder: of S1 and S2, or None.
        tokenizer: "words", "open_clip", or a name or folder for transformers.
        folder: that relative mask paths start from.
        archive: an NPZ file that masks are in, or None.
        full: records hold masks as run lengths, and texts.
    """

    format: str = "picture"
    segmenter: str = "polygon"
    protocols: tuple[str, ...] = ("strict",)
    model_size: Size | None = None
    processor: str | None = None
    resize: bool = False
    encoder: str | None = None
    tokenizer: str = "words"
    folder: str = "."
    archive: str | None = None
    full: bool = True


class Ruler:
    """Measures items; costly objects (tokenizer, encoder, segmenter) are made once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.form = readers.FORMATS[settings.format]
        self.protocols = [PROTOCOLS[name] for name in settings.protocols]
        self.geometry = "box" if settings.segmenter == "box" else "polygon"

    @cached_property
    def segmenter(self) -> Segmenter:
        """Makes masks of answers."""
        return make_segmenter(self.settings.segmenter)

    @cached_property
    def count_tokens(self) -> Callable[[str], int]:
        """Length of a chain."""
        return tokenizer(self.settings.tokenizer)

    @cached_property
    def scorer(self) -> Any:
        """Makes S1 and S2; None without an encoder."""
        if self.settings.encoder is None:
            return None
        from dpad_fast.checkpoints import SMALL_CLIP, is_small_clip
        from dpad_fast.clip import load_encoder
        from dpad_fast.rewards import RewardConfig, RewardScorer
        from dpad_fast.train.policy import quiet as without_bars

        name = self.settings.encoder
        config = replace(RewardConfig.preset("dpad"), terms=("think_format", "answer_format", "discriminative"))
        with without_bars():
            encoder = load_encoder(SMALL_CLIP if is_small_clip(name) else name)
        return RewardScorer(config, encoder=encoder)

    @cached_property
    def processor(self) -> Any:
        """The processor that `--processor` names."""
        from transformers import AutoProcessor

        return AutoProcessor.from_pretrained(self.settings.processor)

    @cached_property
    def archive(self) -> Any:
        """The arrays of an NPZ file."""
        return np.load(self.settings.archive or "", allow_pickle=False)

    def measure(self, items: Sequence[Item]) -> list[dict[str, Any]]:
        """Records of some items, in their order.

        Args:
            items: samples whose targets have masks, with their predictions.

        Returns:
            One record per prediction, and one with the reason "missing" per item that has none; keys as in
            docs/evaluation.md.

        Raises:
            ValueError: a target has no mask, or a predicted mask cannot be read or has another size; names the place.
        """
        for item in items:
            if item.sample.target.mask is None:
                raise ValueError(f"{item.sample.id} has no ground-truth mask")
        pairs: list[tuple[Item, Line | None]] = [(item, line) for item in items for line in item.lines or (None,)]
        readings = [None if line is None or line.text is None else self._read(line.text) for _, line in pairs]
        scale = [
            self._factors(item.sample, line) if reading is not None else (1.0, 1.0)
            for (item, line), reading in zip(pairs, readings, strict=True)
        ]
        answers = [None if r is None else in_pixels(r.answer, f) for r, f in zip(readings, scale, strict=True)]
        masks = self._masks(pairs, readings, answers)
        theirs = {p.reading: self._own_masks(p.reading, pairs, scale) for p in self.protocols if p.reading is not None}
        records = []
        for i, (item, line) in enumerate(pairs):
            own = {name: found[i] for name, found in theirs.items()}
            record = self._record(item, line, readings[i], answers[i], masks[i], own)
            records.append(record)
        self._similarities(records, pairs)
        return records

    def _read(self, text: str) -> Reading:
        return readers.read(self.form, text, self.geometry)

    def _factors(self, sample: Sample, line: Line | None) -> Point:
        """From the answer's coordinates to the picture's pixels."""
        size, model = _size(sample), self._model_size(sample, line)
        return size[0] / model[0], size[1] / model[1]

    def _model_size(self, sample: Sample, line: Line | None) -> Size:
        """What coordinates of an answer refer to: as an option says, else its line, else the format."""
        size = _size(sample)
        model: Size | None = self.settings.model_size
        if model is None and self.settings.processor is not None:
            model = model_size_for(size, self.processor)
        if model is None and line is not None:
            model = line.model_size
        if model is None:
            space = self.form.space
            model = (1000, 1000) if space == readers.NORM else space if isinstance(space, tuple) else size
        return model

    def _masks(
        self, pairs: list[tuple[Item, Line | None]], readings: list[Reading | None], answers: list[Completion | None]
    ) -> list[BoolMask | None]:
        """The predicted masks: read from files, or drawn; None where there is neither a file nor a readable answer."""
        masks: list[BoolMask | None] = [None] * len(pairs)
        asked: list[tuple[int, Completion]] = []
        for i, ((item, line), reading) in enumerate(zip(pairs, readings, strict=True)):
            if line is not None and line.text is None:
                masks[i] = self._mask_from_file(line)
            elif reading is not None and reading.readable:
                answer = answers[i]
                assert answer is not None
                if reading.says_none:
                    masks[i] = np.zeros(_size(item.sample)[::-1], dtype=np.bool_)
                asked += [(i, part) for part in _parts(answer)]
        for i, mask in self._drawn(asked, pairs):
            before = masks[i]
            masks[i] = mask if before is None else before if mask is None else before | mask
        return masks

    def _drawn(self, asked: list[tuple[int, Completion]], pairs: list[tuple[Item, Line | None]]) -> list[Any]:
        samples = [pairs[i][0].sample for i, _ in asked]
        found = self.segmenter.segment(
            [part for _, part in asked], [s.image for s in samples], [_size(s) for s in samples]
        )
        return [(i, mask) for (i, _), mask in zip(asked, found, strict=True)]

    def _own_masks(
        self, reading: str, pairs: list[tuple[Item, Line | None]], scale: list[Point]
    ) -> list[tuple[bool, BoolMask | None]]:
        """Masks by a protocol's own reading of completions: (readable, mask) each."""
        found: list[tuple[bool, BoolMask | None]] = [(False, None)] * len(pairs)
        asked = []
        for i, (_, line) in enumerate(pairs):
            if line is not None and line.text is not None:
                answer = released.read(line.text, scale[i], needs_thinking=reading == "seg-zero")
                asked += [] if answer is None else [(i, answer)]
        for i, mask in self._drawn(asked, pairs):
            found[i] = (True, mask)
        return found

    def _mask_from_file(self, line: Line) -> BoolMask:
        if self.settings.archive is not None:
            return mask_files.checked(self.archive[line.mask], f"{self.settings.archive}: {line.mask}")
        return mask_files.from_value(line.mask, line.place, Path(self.settings.folder))

    def _fitted(self, mask: BoolMask | None, sample: Sample, line: Line | None) -> tuple[BoolMask | None, bool]:
        """The mask at the truth's size, and whether it has that size."""
        size = _size(sample)
        if mask is None or mask.shape == size[::-1]:
            return mask, True
        if self.settings.resize:
            return mask_files.resized(mask, size), True
        if any(protocol.mismatch == "error" for protocol in self.protocols):
            place = "" if line is None else f"{line.place}: "
            raise ValueError(
                f"{place}the mask of {sample.id} is {mask.shape[1]}x{mask.shape[0]}, its truth {size[0]}x{size[1]}; "
                "--resize brings masks to the truth's size"
            )
        return None, False

    def _record(
        self,
        item: Item,
        line: Line | None,
        reading: Reading | None,
        answer: Completion | None,
        mask: BoolMask | None,
        own: dict[str, tuple[bool, BoolMask | None]],
    ) -> dict[str, Any]:
        sample, target = item.sample, item.sample.target
        assert target.mask is not None
        mask, fits = self._fitted(mask, sample, line)
        is_mask = line is not None and line.text is None
        readable = is_mask or (reading is not None and mask is not None)
        found = areas(mask, target.mask, target.ignore)
        says_none = readable and (found.predicted == 0 if is_mask or reading is None else reading.says_none)
        record = _described(item, line, reading, answer, self.count_tokens)
        record["truth_empty"] = found.truth == 0
        record["predicted_empty"] = readable and found.predicted == 0
        verdicts: dict[str, list[float] | None] = {}
        for protocol in self.protocols:
            areas_, can, none = found, readable, says_none
            if protocol.reading is not None and line is not None and not is_mask:
                can, theirs = own[protocol.reading]
                areas_ = areas(theirs, target.mask, target.ignore)
            verdicts[protocol.name] = _as_list(protocol, areas_, can, item.later, line is None, none, fits)
        first = verdicts[self.protocols[0].name]
        shared, union, iou = first if first is not None else (None, None, None)
        record |= {"intersection": shared, "union": union, "iou": iou, "protocols": verdicts}
        if self.settings.full:
            record["truth"] = _truth(sample)
            record["prediction"] = mask_files.rle_of(mask)
        return record

    def _similarities(self, records: list[dict[str, Any]], pairs: list[tuple[Item, Line | None]]) -> None:
        if self.scorer is None:
            return
        some = [
            i
            for i, (item, line) in enumerate(pairs)
            if line is not None and line.text is not None and item.sample.target.box is not None
        ]
        if not some:
            return
        samples = [pairs[i][0].sample for i in some]
        batch = self.scorer.score(
            [records[i]["text"] for i in some],
            [sample.target for sample in samples],
            [sample.image for sample in samples],
            image_keys=[sample.id for sample in samples],
            model_sizes=[self._model_size(pairs[i][0].sample, pairs[i][1]) for i in some],
        )
        for i, row in zip(some, batch.rows(), strict=True):
            for name, key in (("s1", "roi"), ("s2", "aoi")):
                value = row["similarity"][key]
                records[i][name] = None if value is None else round(value, 6)
            records[i]["terms"]["discriminative"] = row["terms"]["discriminative"]


def _as_list(
    protocol: Any, found: Areas, readable: bool, later: bool, missing: bool, says_none: bool, fits: bool
) -> list[float] | None:
    verdict = judge(protocol, found, readable=readable, later=later, missing=missing, says_none=says_none, fits=fits)
    return None if verdict is None else [verdict.intersection, verdict.union, verdict.iou]


def _described(
    item: Item, line: Line | None, reading: Reading | None, answer: Completion | None, count: Callable[[str], int]
) -> dict[str, Any]:
    sample = item.sample
    image = sample.image if isinstance(sample.image, str | os.PathLike) else None
    record: dict[str, Any] = {
        "id": sample.id,
        "query": sample.query,
        "image": None if image is None else os.fspath(image),
        "text": "" if line is None else line.text,
        "chain": None if reading is None else reading.chain,
        "chain_tokens": None if reading is None else count(reading.chain),
        "caption": None if answer is None else answer.caption,
        "box": None if answer is None or answer.box is None else list(answer.box),
        "points": None if answer is None or answer.points is None else [list(point) for point in answer.points],
        "s1": None,
        "s2": None,
        "terms": {}
        if answer is None
        else {"think_format": float(answer.tags_ok), "answer_format": float(answer.fields_ok)},
        "reason": MISSING if line is None else None if reading is None else reading.reason,
        "format_ok": None if line is not None and reading is None else reading is not None and reading.format_ok,
        "lenient_ok": None if line is not None and reading is None else reading is not None and reading.lenient_ok,
    }
    if answer is not None and answer.rings:
        record["polygons"] = [ring.tolist() for ring in answer.rings]
    if sample.target.objects:
        parts = [] if answer is None else _parts(answer)
        scores = reading.scores if reading is not None and len(reading.scores) == len(parts) else (None,) * len(parts)
        record["boxes"] = [
            [*part.box, 1.0 if score is None else score]
            for part, score in zip(parts, scores, strict=True)
            if part.box is not None
        ]
        points = [None if not part.points else list(part.points[0]) for part in parts if part.box is not None]
        record["box_points"] = points
        record["truth_boxes"] = [list(box) for box, _ in sample.target.objects]
        record["truth_points"] = [list(point) for _, point in sample.target.objects]
    return record


def _truth(sample: Sample) -> dict[str, Any]:
    target = sample.target
    return {
        "box": None if target.box is None else list(target.box),
        "points": None if target.points is None else [list(point) for point in target.points],
        "mask": mask_files.rle_of(target.mask),
    }


def _parts(answer: Completion) -> list[Completion]:
    """One answer per object: a list of boxes is drawn box by box, as VisionReasoner does."""
    if answer.objects is None or answer.box is not None:
        return [answer] if answer.box is not None or answer.rings else []
    return [
        replace(answer, box=box, points=None if point is None else (point,), objects=None)  # type: ignore[arg-type]
        for box, point in answer.objects
    ]


def _size(sample: Sample) -> Size:
    mask = sample.target.mask
    assert mask is not None
    return mask.shape[1], mask.shape[0]
