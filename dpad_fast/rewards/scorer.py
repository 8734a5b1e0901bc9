"""`RewardScorer`: N completions, targets and images in, one `ScoreBatch` out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterable, Sequence, Sized
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from dpad_fast.clip.images import Picture, find_pictures
from dpad_fast.rewards import geometry, matching
from dpad_fast.rewards.background import Background, PendingScore
from dpad_fast.rewards.config import BOX_TERMS, RewardConfig
from dpad_fast.rewards.discriminative import Discriminator
from dpad_fast.rewards.format import answer_format, non_repeat, think_format
from dpad_fast.rewards.parse import parse_completion
from dpad_fast.rewards.places import CaptionRow
from dpad_fast.rewards.reasons import explain_zeros
from dpad_fast.rewards.spaces import ModelSizes, find_spaces, read_model_sizes, unknown_size
from dpad_fast.rewards.truth import check_places
from dpad_fast.row_errors import RowErrors, given_error, no_text
from dpad_fast.timer import Timer
from dpad_fast.types import Completion, Point, ScoreBatch, Target

if TYPE_CHECKING:
    from dpad_fast.clip.encoder import ClipEncoder

_STAGES = ("parse", "geometry", "preprocess", "text", "image", "combine")
_FORMAT = ("think_format", "answer_format")


@dataclass
class _Batch:
    """A batch on its way through the two stages: the first makes it, the second fills in what needs the encoder.

    Attributes:
        count: N.
        columns: per term N values.
        reasons: N reason codes.
        captions: the rows whose captions are to be compared.
        pictures: the distinct ones.
        timings: seconds per stage so far.
        errors: the rows that cannot be scored.
        similarity: "roi" (S1) and "aoi" (S2), N values each.
    """

    count: int
    columns: dict[str, list[float]]
    reasons: list[str | None]
    captions: list[CaptionRow]
    pictures: list[Picture]
    timings: dict[str, float]
    errors: RowErrors
    similarity: dict[str, list[float]] = field(init=False)

    def __post_init__(self) -> None:
        self.similarity = {name: [float("nan")] * self.count for name in ("roi", "aoi")}


class RewardScorer:
    """Scores completions as a `RewardConfig` says.

    Args:
        config: which terms, and how.
        encoder: the frozen CLIP-like model; needed where the terms include "discriminative".

    Attributes:
        compared: completions compared under the encoder's precision "guarded" so far.
        recomputed: those of them that were embedded again in float32.

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
        self.compared = self.recomputed = 0
        self._background = Background()
        self._rebuild: tuple[Callable[[RewardConfig], RewardScorer], ClipEncoder] | None = None
        self._warned = False

    def rebuilt_by(self, rebuild: Callable[[RewardConfig], RewardScorer], encoder: ClipEncoder) -> None:
        """Lets this be pickled while it has that encoder: `rebuild`, which must be picklable, makes its like."""
        self._rebuild = (rebuild, encoder)

    def __reduce__(self) -> Any:
        """Through the `ScorerSpec` that this was built from; one without an encoder needs none."""
        if self.encoder is None:
            return type(self), (self.config,)
        if self._rebuild is None or self._rebuild[1] is not self.encoder:
            raise TypeError(
                "this RewardScorer cannot be pickled, for its encoder holds a model. Build it from a spec, which can: "
                "dpad_fast.ScorerSpec(config, encoder=NAME_OR_FOLDER).build()"
            )
        return self._rebuild[0], (self.config,)

    def score(
        self,
        completions: Sequence[str],
        targets: Sequence[Target | str],
        images: Sequence[Any] | None = None,
        image_keys: Sequence[Hashable] | None = None,
        model_sizes: ModelSizes | None = None,
        on_error: str = "raise",
    ) -> ScoreBatch:
        """Scores N completions. A bad completion gets low scores and a reason; it never raises nor changes another's.

        Args:
            completions: N strings. Here and in the other columns an entry may be the `ValueError` of whoever failed to
                read it: an error of that row.
            targets: N ground truths, or solution strings.
            images: N images (PIL, path, bytes, {"bytes", "path"}, array or tensor), each the picture that its target
                describes, at the target's size or another; None where no term looks at images.
            image_keys: N keys; images of equal keys must be equal, and are embedded once. None entries have no key.
            model_sizes: N (width, height) of the images that the model saw, for `coordinates="pixel"`: pairs, an [N, 2]
                array or tensor, None where `config.model_size` holds or nothing is known. Or a function from a
                picture's (width, height) to that size, None where the model saw the picture as it is.
            on_error: "raise", or "row": a row with a bad target, image or size is left unscored (NaN in every column, a
                reason such as "bad-image", the message in `errors`), and the others are what they are without it.

        Returns:
            The total, every term, the similarities and the reasons.

        Raises:
            ValueError: a bad argument; a bad target, image or size unless `on_error` is "row". Names index and field.

        Warns:
            UserWarning: once per scorer, where pixels are scored and the picture that the model saw is not known to be
                the given one (see docs/rewards.md).
        """
        return self._finish(self._begin(completions, targets, images, image_keys, model_sizes, on_error))

    def score_async(
        self,
        completions: Sequence[str],
        targets: Sequence[Target | str],
        images: Sequence[Any] | None = None,
        image_keys: Sequence[Hashable] | None = None,
        model_sizes: ModelSizes | None = None,
        on_error: str = "raise",
    ) -> PendingScore:
        """`score` in the background: returns at once, so that a trainer can go on generating.

        Batches are scored in the order of the calls, and one is parsed while the encoder works on the one before it.
        The encoder's `threads` says how many CPU threads it may use beside the caller's own work.

        Returns:
            A handle with `result(timeout)` and `done()`, which can be awaited; it raises what `score` would.
        """
        texts, truths, shown, keys, sizes = map(kept, (completions, targets, images, image_keys, model_sizes))
        return self._background.submit(lambda: self._begin(texts, truths, shown, keys, sizes, on_error), self._finish)

    def _begin(
        self,
        completions: Sequence[str],
        targets: Sequence[Target | str],
        images: Sequence[Any] | None,
        image_keys: Sequence[Hashable] | None,
        model_sizes: ModelSizes | None,
        on_error: str,
    ) -> _Batch:
        """Everything that needs no encoder."""
        timer = Timer(dict.fromkeys(_STAGES, 0.0))
        errors = RowErrors(on_error)
        count = check_lengths(completions, targets, images, model_sizes)
        encoded = self.config.needs_encoder
        pictures, index = ([], []) if images is None else find_pictures(images, image_keys, errors, contents=encoded)
        timer.lap("geometry")
        truths = self._targets(targets, errors)
        parsed = self._parse(completions, errors)
        timer.lap("parse")
        if encoded:
            _check_pictures(pictures, index, errors)
        shown = None if images is None else [pictures[place] if place >= 0 else None for place in index]
        sizes = read_model_sizes(self.config, model_sizes, shown, count, errors)
        scales = find_spaces(self.config, truths, shown, sizes, errors)
        check_places(self.config, truths, shown, errors)
        if not self._warned:
            self._warn(unknown_size(self.config, shown, sizes, errors))
        columns = self._columns(parsed, truths, scales, errors)
        reasons = [completion.reasons[0] if completion.reasons else None for completion in parsed]
        captions: list[CaptionRow] = []
        if encoded and count:
            captions = self._captions(parsed, truths, scales, columns, index if images is not None else None, errors)
        timer.lap("geometry")
        return _Batch(count, columns, reasons, captions, pictures, timer.seconds, errors)

    def _warn(self, message: str | None) -> None:
        if message is not None:
            self._warned = True
            warnings.warn(message, stacklevel=4)  # the caller of `score`

    def _finish(self, batch: _Batch) -> ScoreBatch:
        """The encoder's part, and the sum."""
        if self.config.needs_encoder and batch.count:
            batch.columns["discriminative"] = self._discriminate(batch)
        timer = Timer(batch.timings)
        scores = self._combine(batch)
        timer.lap("combine")
        return scores

    def _parse(self, completions: Sequence[str], errors: RowErrors) -> list[Completion]:
        parsed = []
        for i, text in enumerate(completions):
            if not isinstance(text, str):
                errors.add(i, no_text(text, f"completions[{i}]"))
                text = ""
            parsed.append(parse_completion(text, self.config))
        return parsed

    def _targets(self, targets: Sequence[Target | str], errors: RowErrors) -> list[Target]:
        truths = []
        for i, target in enumerate(targets):
            if i in errors:
                truths.append(Target())
                continue
            try:
                truths.append(self._target(target, i))
            except ValueError as error:
                errors.add(i, error)
                truths.append(Target())
        return truths

    def _target(self, target: Target | str, i: int) -> Target:
        given_error(target, f"targets[{i}]")
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
        self, parsed: list[Completion], targets: list[Target], scales: list[Point | None], errors: RowErrors
    ) -> dict[str, list[float]]:
        columns: dict[str, list[float]] = {name: [] for name in dict.fromkeys((*_FORMAT, *self.config.terms))}
        for i, (completion, target, scale) in enumerate(zip(parsed, targets, scales, strict=True)):
            values: dict[str, float] = {}
            if i not in errors:
                try:
                    values = self._values(completion, target, scale, i)
                except ValueError as error:
                    errors.add(i, error)
            for name, column in columns.items():
                column.append(values.get(name, 0.0))
        return columns

    def _values(self, completion: Completion, target: Target, scale: Point | None, i: int) -> dict[str, float]:
        """Every term that needs no encoder, of one completion."""
        config = self.config
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
        return values

    def _captions(
        self,
        parsed: list[Completion],
        targets: list[Target],
        scales: list[Point | None],
        columns: dict[str, list[float]],
        index: list[int] | None,
        errors: RowErrors,
    ) -> list[CaptionRow]:
        if index is None:
            raise ValueError("images is missing: the term 'discriminative' needs them")
        rows = []
        for i, completion in enumerate(parsed):
            # The released code scores an empty caption; elsewhere there is nothing to compare.
            silent = completion.caption is None or (not completion.caption and self.config.answer != "released")
            if silent or i in errors or (self.config.gate and self._fails_gate(columns, i)):
                continue
            truth, _ = geometry.read_truth(targets[i], self.config)
            box = None
            if self.config.region == "predicted" and completion.box is not None:
                box = _numbers(geometry.scale_box(completion.box, scales[i]))
            assert completion.caption is not None
            rows.append(CaptionRow(i, completion.caption, targets[i], truth, box, index[i]))
        return rows

    def _discriminate(self, batch: _Batch) -> list[float]:
        column = [0.0] * batch.count
        if not batch.captions:
            return column
        assert self.encoder is not None
        discriminator = Discriminator(batch.pictures, self.config, self.encoder, batch.errors)
        results = discriminator.run(batch.captions, batch.timings)
        self.compared += discriminator.compared
        self.recomputed += discriminator.recomputed
        for i, found in results.items():
            if isinstance(found, str):
                batch.reasons[i] = batch.reasons[i] or found
            else:
                column[i], batch.similarity["roi"][i], batch.similarity["aoi"][i] = found
        return column

    def _fails_gate(self, columns: dict[str, list[float]], i: int) -> bool:
        return any(columns[name][i] < 1.0 for name in _FORMAT)

    def _combine(self, batch: _Batch) -> ScoreBatch:
        columns, errors = batch.columns, batch.errors
        if self.config.gate:
            for i in range(batch.count):
                if self._fails_gate(columns, i):
                    for name in self.config.terms:
                        if name not in _FORMAT:
                            columns[name][i] = 0.0
        for i in errors.rows():
            batch.reasons[i] = errors.code(i)
            for column in (*columns.values(), *batch.similarity.values()):
                column[i] = float("nan")
        explain_zeros(columns, batch.reasons, self.config.terms)
        terms = {name: torch.tensor(columns[name], dtype=torch.float32, device="cpu") for name in self.config.terms}
        total = torch.zeros(batch.count, dtype=torch.float32, device="cpu")
        for name, values in terms.items():
            total += self.config.weight(name) * values
        return ScoreBatch(
            total=total,
            terms=terms,
            similarity={
                name: torch.tensor(found, dtype=torch.float32, device="cpu") for name, found in batch.similarity.items()
            },
            reasons=tuple(batch.reasons),
            timings=batch.timings,
            errors=errors.messages(batch.count),
        )


def _check_pictures(pictures: Sequence[Picture], index: Sequence[int], errors: RowErrors) -> None:
    """A bad image is the caller's mistake whether or not a completion gets to it."""
    for place, picture in enumerate(pictures):
        try:
            picture.check()
        except ValueError as error:
            for row in (i for i, found in enumerate(index) if found == place):
                errors.add(row, error)


def kept(column: Any) -> Any:
    """A column as it is now; what is none is refused with the batch."""
    return list(column) if isinstance(column, Iterable) and not isinstance(column, str) else column


def check_lengths(
    completions: Sequence[str], targets: Sequence[Any], images: Sequence[Any] | None, sizes: ModelSizes | None
) -> int:
    """N, where all columns have N entries; else a `ValueError` that names the one."""
    if isinstance(completions, str):
        raise ValueError("completions must be a list of strings, got one string")
    optional = {"images": images, "model_sizes": None if callable(sizes) else sizes}
    given = {name: column for name, column in optional.items() if column is not None}
    for name, column in {"completions": completions, "targets": targets, **given}.items():
        if not isinstance(column, Sized):
            raise ValueError(f"{name} must be a list with an entry per completion, got {type(column).__name__}")
        if len(column) != len(completions):
            raise ValueError(f"{name} has {len(column)} entries for {len(completions)} completions")
    return len(completions)


def _numbers(box: Sequence[Any] | None) -> list[float] | None:
    """The box as floats with area, or None: under `answer="released"` its entries may be anything."""
    if box is None or any(type(value) not in (int, float) or not abs(value) < 1e9 for value in box):
        return None
    return [float(value) for value in box]
