"""One chunk of predictions against its samples: a plain record each, judged by every chosen protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from dpad_fast.cached import cached_property
from dpad_fast.evaluate import mask_files, readers
from dpad_fast.evaluate.protocols import PROTOCOLS, areas
from dpad_fast.evaluate.readers import Reading, released
from dpad_fast.evaluate.records import Case, Item, Line, as_list, case_of, described, parts_of, truth_of
from dpad_fast.evaluate.tokenizers import tokenizer
from dpad_fast.model_size import model_size_for
from dpad_fast.rewards.spaces import in_pixels
from dpad_fast.segmenters import Segmenter, make_segmenter
from dpad_fast.types import BoolMask, Completion, Point, Size

Pair: TypeAlias = tuple[Case, "Line | None"]
# Of a record whose truth has no mask.
_NOT_MEASURED: dict[str, Any] = dict.fromkeys(
    ("intersection", "union", "iou", "truth_empty", "predicted_empty", "prediction")
)


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
            items: samples with their predictions.

        Returns:
            One record per prediction, and one with the reason "missing" per item that has none; keys as in
            docs/evaluation.md. Last, {"id", "broken": why} of each item that could not be read and may be spared.

        Raises:
            ValueError: a sample cannot be read or has neither mask nor box, or a predicted mask cannot be read or has
                another size; names the place.
        """
        cases, broken = _read(items)
        pairs: list[Pair] = [(case, line) for case in cases for line in case.lines or (None,)]
        readings = [None if line is None or line.text is None else self._read(line.text) for _, line in pairs]
        scale = [
            self._factors(case, line) if reading is not None else (1.0, 1.0)
            for (case, line), reading in zip(pairs, readings, strict=True)
        ]
        answers = [None if r is None else in_pixels(r.answer, f) for r, f in zip(readings, scale, strict=True)]
        masks = self._masks(pairs, readings, answers)
        theirs = {p.reading: self._own_masks(p.reading, pairs, scale) for p in self.protocols if p.reading is not None}
        records = []
        for i, (case, line) in enumerate(pairs):
            own = {name: found[i] for name, found in theirs.items()}
            record = self._record(case, line, readings[i], answers[i], masks[i], own)
            records.append(record)
        self._similarities(records, pairs)
        return records + broken

    def _read(self, text: str) -> Reading:
        return readers.read(self.form, text, self.geometry)

    def _factors(self, case: Case, line: Line | None) -> Point:
        """From the answer's coordinates to the picture's pixels."""
        size, model = case.size, self._model_size(case.size, line)
        return size[0] / model[0], size[1] / model[1]

    def _model_size(self, size: Size, line: Line | None) -> Size:
        """What coordinates of an answer refer to: as an option says, else its line, else the format."""
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
        self, pairs: list[Pair], readings: list[Reading | None], answers: list[Completion | None]
    ) -> list[BoolMask | None]:
        """The predicted masks: read from files, or drawn; None where there is neither a file nor a readable answer."""
        masks: list[BoolMask | None] = [None] * len(pairs)
        asked: list[tuple[int, Completion]] = []
        for i, ((case, line), reading) in enumerate(zip(pairs, readings, strict=True)):
            if case.mask is None:
                continue  # nothing to compare a mask with
            if line is not None and line.text is None:
                masks[i] = self._mask_from_file(line)
            elif reading is not None and reading.readable:
                answer = answers[i]
                assert answer is not None
                if reading.says_none:
                    masks[i] = np.zeros(case.size[::-1], dtype=np.bool_)
                asked += [(i, part) for part in parts_of(answer)]
        for i, mask in self._drawn(asked, pairs):
            before = masks[i]
            masks[i] = mask if before is None else before if mask is None else before | mask
        return masks

    def _drawn(self, asked: list[tuple[int, Completion]], pairs: list[Pair]) -> list[Any]:
        cases = [pairs[i][0] for i, _ in asked]
        found = self.segmenter.segment(
            [part for _, part in asked], [case.sample.image for case in cases], [case.size for case in cases]
        )
        return [(i, mask) for (i, _), mask in zip(asked, found, strict=True)]

    def _own_masks(self, reading: str, pairs: list[Pair], scale: list[Point]) -> list[tuple[bool, BoolMask | None]]:
        """Masks by a protocol's own reading of completions: (readable, mask) each."""
        found: list[tuple[bool, BoolMask | None]] = [(False, None)] * len(pairs)
        asked = []
        for i, (case, line) in enumerate(pairs):
            if line is not None and line.text is not None and case.mask is not None:
                answer = released.read(line.text, scale[i], needs_thinking=reading == "seg-zero")
                asked += [] if answer is None else [(i, answer)]
        for i, mask in self._drawn(asked, pairs):
            found[i] = (True, mask)
        return found

    def _mask_from_file(self, line: Line) -> BoolMask:
        if self.settings.archive is not None:
            loaded = mask_files.array_of(self.archive, line.mask, self.settings.archive)
            return mask_files.checked(loaded, f"{self.settings.archive}: {line.mask}")
        return mask_files.from_value(line.mask, line.place, Path(self.settings.folder))

    def _fitted(self, mask: BoolMask | None, case: Case, line: Line | None) -> tuple[BoolMask | None, bool]:
        """The mask at the truth's size, and whether it has that size."""
        size = case.size
        if mask is None or mask.shape == size[::-1]:
            return mask, True
        if self.settings.resize:
            return mask_files.resized(mask, size), True
        if any(protocol.mismatch == "error" for protocol in self.protocols):
            place = "" if line is None else f"{line.place}: "
            raise ValueError(
                f"{place}the mask of {case.sample.id} is {mask.shape[1]}x{mask.shape[0]}, its truth "
                f"{size[0]}x{size[1]}; --resize brings masks to the truth's size"
            )
        return None, False

    def _record(
        self,
        case: Case,
        line: Line | None,
        reading: Reading | None,
        answer: Completion | None,
        mask: BoolMask | None,
        own: dict[str, tuple[bool, BoolMask | None]],
    ) -> dict[str, Any]:
        record = described(case, line, reading, answer, self.count_tokens)
        if self.settings.full:
            record["truth"] = truth_of(case)
        if case.mask is None:
            return record | _NOT_MEASURED | {"protocols": dict.fromkeys(self.settings.protocols)}
        mask, fits = self._fitted(mask, case, line)
        is_mask = line is not None and line.text is None
        readable = is_mask or (reading is not None and mask is not None)
        ignore = case.sample.target.ignore
        found = areas(mask, case.mask, ignore)
        says_none = readable and (found.predicted == 0 if is_mask or reading is None else reading.says_none)
        record["truth_empty"] = found.truth == 0
        record["predicted_empty"] = readable and found.predicted == 0
        verdicts: dict[str, list[float] | None] = {}
        for protocol in self.protocols:
            areas_, can, none = found, readable, says_none
            if protocol.reading is not None and line is not None and not is_mask:
                can, theirs = own[protocol.reading]
                areas_ = areas(theirs, case.mask, ignore)
            verdicts[protocol.name] = as_list(protocol, areas_, can, case.later, line is None, none, fits)
        first = verdicts[self.protocols[0].name]
        shared, union, iou = first if first is not None else (None, None, None)
        record |= {"intersection": shared, "union": union, "iou": iou, "protocols": verdicts}
        if self.settings.full:
            record["prediction"] = mask_files.rle_of(mask)
        return record

    def _similarities(self, records: list[dict[str, Any]], pairs: list[Pair]) -> None:
        if self.scorer is None:
            return
        some = [
            i
            for i, (case, line) in enumerate(pairs)
            if line is not None and line.text is not None and case.sample.target.box is not None
        ]
        if not some:
            return
        samples = [pairs[i][0].sample for i in some]
        batch = self.scorer.score(
            [records[i]["text"] for i in some],
            [sample.target for sample in samples],
            [sample.image for sample in samples],
            image_keys=[sample.id for sample in samples],
            model_sizes=[self._model_size(pairs[i][0].size, pairs[i][1]) for i in some],
        )
        for i, row in zip(some, batch.rows(), strict=True):
            for name, key in (("s1", "roi"), ("s2", "aoi")):
                value = row["similarity"][key]
                records[i][name] = None if value is None else round(value, 6)
            records[i]["terms"]["discriminative"] = row["terms"]["discriminative"]


def _read(items: Sequence[Item]) -> tuple[list[Case], list[dict[str, Any]]]:
    """The items that can be read, and what is wrong with the others."""
    cases, broken = [], []
    for item in items:
        try:
            cases.append(case_of(item))
        except ValueError as error:
            if not item.spare:
                raise
            broken.append({"id": item.sample.id, "broken": str(error)})
    return cases, broken


def measuring(settings: Settings) -> Callable[[Sequence[Item]], list[dict[str, Any]]]:
    """What measures chunks by some settings, for `chunks.measure_into`."""
    return Ruler(settings).measure
