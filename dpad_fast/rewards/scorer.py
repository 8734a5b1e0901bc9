"""`RewardScorer`: N completions, targets and images in, one `ScoreBatch` out."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from dpad_fast.rewards import geometry, matching
from dpad_fast.rewards.background import Background, PendingScore
from dpad_fast.rewards.config import BOX_TERMS, RewardConfig
from dpad_fast.rewards.discriminative import Comparison, Job
from dpad_fast.rewards.format import answer_format, non_repeat, think_format
from dpad_fast.rewards.images import Picture, find_pictures
from dpad_fast.rewards.parse import parse_completion
from dpad_fast.rewards.reasons import explain_zeros
from dpad_fast.rewards.spaces import find_spaces
from dpad_fast.rewards.truth import check_place
from dpad_fast.types import Completion, Point, ScoreBatch, Size, Target

if TYPE_CHECKING:
    from dpad_fast.clip import ClipEncoder
    from dpad_fast.rewards.spec import ScorerSpec

_STAGES = ("parse", "geometry", "preprocess", "text", "image", "combine")
_FORMAT = ("think_format", "answer_format")


@dataclass(frozen=True)
class _Ready:
    """A batch that is parsed and checked, and has its geometry terms."""

    count: int
    columns: dict[str, list[float]]
    reasons: list[str | None]
    jobs: list[Job]
    pictures: list[Picture]
    timings: dict[str, float]


class RewardScorer:
    """Scores completions as a `RewardConfig` says.

    Args:
        config: which terms, and how.
        encoder: the frozen CLIP-like model; needed where the terms include "discriminative".

    Raises:
        ValueError: the configuration needs an encoder and there is none.
    """

    def __init__(self, config: RewardConfig, encoder: ClipEncoder | None = None) -> None:
        if config.needs_encoder and encoder is None:
            raise ValueError(
                "encoder is missing: the term 'discriminative' needs one (dpad_fast.load_encoder), "
                "or leave the term out of RewardConfig.terms"
            )
        self.config = config
        self.encoder = encoder
        self._background = Background()
        self._spec: tuple[ScorerSpec, ClipEncoder | None] | None = None  # what `ScorerSpec.build` made this from

    def __reduce__(self) -> Any:
        """Through the `ScorerSpec` that this was built from; one without an encoder needs none."""
        if self.encoder is None:
            return type(self), (self.config,)
        if self._spec is None or self._spec[1] is not self.encoder:
            raise TypeError(
                "this RewardScorer cannot be pickled, for its encoder holds a model. Build it from a spec, which can: "
                "dpad_fast.ScorerSpec(config, encoder=NAME_OR_FOLDER).build()"
            )
        return _build, (replace(self._spec[0], config=self.config),)

    def score(
        self,
        completions: Sequence[str],
        targets: Sequence[Target | str],
        images: Sequence[Any] | None = None,
        image_keys: Sequence[Hashable] | None = None,
        model_sizes: Sequence[Size] | None = None,
    ) -> ScoreBatch:
        """Scores N completions. A bad completion gets low scores and a reason; it never raises nor changes another's.

        Args:
            completions: N strings.
            targets: N ground truths, or solution strings.
            images: N images (PIL, path, bytes, {"bytes", "path"}, array or tensor), each the picture that its target
                describes, at the target's size or another; None where no term looks at images.
            image_keys: N keys; images of equal keys are taken to be equal.
            model_sizes: N (width, height) of the images that the model saw, for `coordinates="pixel"`.

        Returns:
            The total, every term, the similarities and the reasons.

        Raises:
            ValueError: a bad target, image or argument; names the index and the field.
        """
        return self._finish(self._begin(completions, targets, images, image_keys, model_sizes))

    def score_async(
        self,
        completions: Sequence[str],
        targets: Sequence[Target | str],
        images: Sequence[Any] | None = None,
        image_keys: Sequence[Hashable] | None = None,
        model_sizes: Sequence[Size] | None = None,
    ) -> PendingScore:
        """`score` in the background: returns at once, so that a trainer can go on generating.

        Batches are scored in the order of the calls, and one is parsed while the encoder works on the one before it.
        The encoder's `threads` says how many CPU threads it may use beside the caller's own work.

        Returns:
            A handle with `result(timeout)` and `done()`, which can be awaited; it raises what `score` would.
        """
        given = (list(completions) if not isinstance(completions, str) else completions, list(targets))
        rest = [None if part is None else list(part) for part in (images, image_keys, model_sizes)]
        return self._background.submit(lambda: self._begin(*given, *rest), self._finish)

    def _begin(
        self,
        completions: Sequence[str],
        targets: Sequence[Target | str],
        images: Sequence[Any] | None,
        image_keys: Sequence[Hashable] | None,
        model_sizes: Sequence[Size] | None,
    ) -> _Ready:
        """Everything that needs no encoder."""
        timings = dict.fromkeys(_STAGES, 0.0)
        began = time.perf_counter()
        count = _check_lengths(completions, targets, images, model_sizes)
        truths = [self._target(target, i) for i, target in enumerate(targets)]
        parsed = [parse_completion(text, self.config) for text in completions]
        began = _lap(timings, "parse", began)
        pictures, index = ([], []) if images is None else find_pictures(images, image_keys)
        sizes = None if images is None else [pictures[place] for place in index]
        if self.config.needs_encoder:
            for picture in pictures:  # a bad image is the caller's mistake whether or not a completion gets to it
                picture.check()
        scales = find_spaces(self.config, truths, sizes, model_sizes)
        for i, truth in enumerate(truths):
            check_place(truth, i, None if sizes is None else sizes[i], self.config)
        columns = self._columns(parsed, truths, scales)
        reasons = [completion.reasons[0] if completion.reasons else None for completion in parsed]
        jobs: list[Job] = []
        if self.config.needs_encoder and count:
            jobs = self._jobs(parsed, truths, scales, columns, index if images is not None else None)
        _lap(timings, "geometry", began)
        return _Ready(count, columns, reasons, jobs, pictures, timings)

    def _finish(self, ready: _Ready) -> ScoreBatch:
        """The encoder's part, and the sum."""
        count, columns, timings = ready.count, ready.columns, ready.timings
        similarity = {"roi": [float("nan")] * count, "aoi": [float("nan")] * count}
        if self.config.needs_encoder and count:
            columns["discriminative"] = self._discriminate(
                ready.jobs, ready.pictures, count, similarity, ready.reasons, timings
            )
        began = time.perf_counter()
        batch = self._combine(columns, similarity, ready.reasons, count, timings)
        timings["combine"] += time.perf_counter() - began
        return batch

    def _target(self, target: Target | str, i: int) -> Target:
        if isinstance(target, str):
            if self.config.answer == "released":
                # What cannot be read scores 0 there; a space keeps an empty text apart from no text.
                return Target(text=target or " ")
            try:
                target = Target.parse(target)
            except ValueError as error:
                raise ValueError(f"targets[{i}]: {error}") from None
        if not isinstance(target, Target):
            raise ValueError(f"targets[{i}] must be a Target or a string, got {type(target).__name__}")
        if self.config.answer == "objects":
            if not target.objects:
                raise ValueError(f"targets[{i}].objects is empty; the multi-object terms need at least one")
        elif not (self.config.answer == "released" and target.text):
            if self.config.needs_encoder or any(term in self.config.terms for term in ("iou", "box_l1")):
                geometry.check_box(target.box, f"targets[{i}].box")
            if "point_l1" in self.config.terms and target.points is None:
                raise ValueError(f"targets[{i}].points is missing; the term 'point_l1' needs it")
        if self.config.region == "mask" and self.config.needs_encoder:
            geometry.check_mask(target, i)
        return target

    def _columns(
        self, parsed: list[Completion], targets: list[Target], scales: list[Point | None]
    ) -> dict[str, list[float]]:
        config = self.config
        columns: dict[str, list[float]] = {name: [] for name in dict.fromkeys((*_FORMAT, *config.terms))}
        for i, (completion, target, scale) in enumerate(zip(parsed, targets, scales, strict=True)):
            values = {"think_format": think_format(completion), "answer_format": answer_format(completion)}
            if any(term in config.terms for term in BOX_TERMS):
                box = None if completion.box is None else geometry.scale_box(completion.box, scale)
                truth, points = geometry.read_truth(target, config)
                values["iou"] = geometry.iou_term(box, truth, config.iou_threshold)
                values["box_l1"] = geometry.box_l1_term(box, truth, config.box_l1_threshold)
                limit = config.point_threshold
                values["point_l1"] = geometry.point_l1_term(completion.points, box, points, limit, scale)
            if "mask_iou" in config.terms:
                values["mask_iou"] = geometry.mask_term(completion, target, i, config, scale)
            if "accuracy" in config.terms:
                values["accuracy"] = matching.accuracy_term(completion, target, config, scale)
            if "non_repeat" in config.terms:
                values["non_repeat"] = non_repeat(completion.text)
            for name, column in columns.items():
                column.append(values.get(name, 0.0))
        return columns

    def _jobs(
        self,
        parsed: list[Completion],
        targets: list[Target],
        scales: list[Point | None],
        columns: dict[str, list[float]],
        index: list[int] | None,
    ) -> list[Job]:
        if index is None:
            raise ValueError("images is missing: the term 'discriminative' needs them")
        jobs = []
        for i, completion in enumerate(parsed):
            # The released code scores an empty caption; elsewhere there is nothing to compare.
            silent = completion.caption is None or (not completion.caption and self.config.answer != "released")
            if silent or (self.config.gate and self._fails_gate(columns, i)):
                continue
            truth, _ = geometry.read_truth(targets[i], self.config)
            box = None
            if self.config.region == "predicted" and completion.box is not None:
                box = _numbers(geometry.scale_box(completion.box, scales[i]))
            assert completion.caption is not None
            jobs.append(Job(i, completion.caption, targets[i], truth, box, index[i]))
        return jobs

    def _discriminate(
        self,
        jobs: list[Job],
        pictures: list[Picture],
        count: int,
        similarity: dict[str, list[float]],
        reasons: list[str | None],
        timings: dict[str, float],
    ) -> list[float]:
        column = [0.0] * count
        if not jobs:
            return column
        assert self.encoder is not None
        results = Comparison(pictures, self.config, self.encoder).run(jobs, timings)
        for i, found in results.items():
            if isinstance(found, str):
                reasons[i] = reasons[i] or found
            else:
                column[i], similarity["roi"][i], similarity["aoi"][i] = found
        return column

    def _fails_gate(self, columns: dict[str, list[float]], i: int) -> bool:
        return any(columns[name][i] < 1.0 for name in _FORMAT)

    def _combine(
        self,
        columns: dict[str, list[float]],
        similarity: dict[str, list[float]],
        reasons: list[str | None],
        count: int,
        timings: dict[str, float],
    ) -> ScoreBatch:
        if self.config.gate:
            for i in range(count):
                if self._fails_gate(columns, i):
                    for name in self.config.terms:
                        if name not in _FORMAT:
                            columns[name][i] = 0.0
        explain_zeros(columns, reasons, self.config.terms)
        terms = {name: torch.tensor(columns[name], dtype=torch.float32, device="cpu") for name in self.config.terms}
        total = torch.zeros(count, dtype=torch.float32, device="cpu")
        for name, column in terms.items():
            total += self.config.weight(name) * column
        similar = {name: torch.tensor(values, dtype=torch.float32, device="cpu") for name, values in similarity.items()}
        return ScoreBatch(total=total, terms=terms, similarity=similar, reasons=tuple(reasons), timings=timings)


def _build(spec: ScorerSpec) -> RewardScorer:
    return spec.build()


def _check_lengths(
    completions: Sequence[str], targets: Sequence[Any], images: Sequence[Any] | None, sizes: Sequence[Any] | None
) -> int:
    if isinstance(completions, str):
        raise ValueError("completions must be a list of strings, got one string")
    for name, given in (("targets", targets), ("images", images), ("model_sizes", sizes)):
        if given is not None and len(given) != len(completions):
            raise ValueError(f"{name} has {len(given)} entries for {len(completions)} completions")
    for i, text in enumerate(completions):
        if not isinstance(text, str):
            raise ValueError(f"completions[{i}] must be a string, got {type(text).__name__}")
    return len(completions)


def _numbers(box: Sequence[Any] | None) -> list[float] | None:
    """The box as floats with area, or None: under `answer="released"` its entries may be anything."""
    if box is None or any(type(value) not in (int, float) or not abs(value) < 1e9 for value in box):
        return None
    return [float(value) for value in box]


def _lap(timings: dict[str, float], stage: str, began: float) -> float:
    now = time.perf_counter()
    timings[stage] = now - began
    return now
