"""`RewardConfig`: every choice of the scorer as one typed, frozen field. Presets are instances of it (`presets.py`)."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from dpad_fast.model_size import whole_size

ANSWERS = ("strict", "released", "objects")
SHAPES = ("binary", "released", "margin", "sigmoid", "roi-threshold")
REGIONS = ("box", "predicted", "mask")
CONTRASTS = ("image", "blanked", "hardest")
LONG_CAPTIONS = ("zero", "truncate", "chunk")
GEOMETRIES = ("box", "mask")
COORDINATES = ("pixel", "norm1000", "norm1")
TAG_ORDERS = (("think", "answer"), ("think", "answer", "caption"))
TERMS = (
    "think_format",
    "answer_format",
    "iou",
    "box_l1",
    "point_l1",
    "mask_iou",
    "accuracy",
    "non_repeat",
    "discriminative",
)
FORMAT_TERMS = ("think_format", "answer_format")
BOX_TERMS = ("iou", "box_l1", "point_l1")
MAX_OBJECTS = 1000  # matching two lists of this length takes tens of MB and, where made to be slow, some seconds

_CHOICES: dict[str, tuple[str, ...]] = {
    "answer": ANSWERS,
    "shape": SHAPES,
    "region": REGIONS,
    "contrast": CONTRASTS,
    "long_caption": LONG_CAPTIONS,
    "geometry": GEOMETRIES,
    "coordinates": COORDINATES,
}


@dataclass(frozen=True)
class RewardConfig:
    """What a reward is made of. The defaults are the `dpad` preset; formulas are in docs/rewards.md.

    Attributes:
        name: the preset that this started from; shown in tables, never read by the scorer.
        terms: the terms that are computed, in the order of `ScoreBatch.terms`.
        weights: weight of each term in the total; a term that is not named weighs 1.
        tags: the tags that must stand in this order.
        strip: whether whitespace around the whole completion is allowed.
        answer: how the answer is read. "strict": a JSON object inside `<answer>` whose coordinates are finite numbers;
            "released": the first `{...}` anywhere, as the authors' code does; "objects": a JSON list of objects.
        gate: a format failure zeroes every other term.
        geometry: "box" (IoU, L1 and points) or "mask" (IoU of the answer's polygon with the ground-truth mask).
        iou_threshold: `iou` is 1 above this.
        box_l1_threshold: `box_l1` is 1 below this mean absolute difference, in ground-truth pixels.
        point_threshold: `point_l1` is 1 below this distance, in ground-truth pixels.
        mask_threshold: `mask_iou` is 1 above this; None keeps the raw IoU.
        max_objects: both sides are cut here in the multi-object form; at most 1000.
        shape: how S1 and S2 become the discriminative term.
        alpha: slope of `shape="sigmoid"`.
        tau: threshold of `shape="roi-threshold"`.
        region: what S1 compares with: the ground-truth box, the predicted box, or the ground-truth mask.
        contrast: what S2 compares with: the whole image, the image with the region blanked, or the hardest other box.
        long_caption: a caption beyond the model's context scores zero, is truncated, or is averaged over windows.
        coordinates: space of the answer's coordinates: pixels of the image that the model saw, or 0..1000, or 0..1.
        model_size: (width, height) of the image that the model saw, for `coordinates="pixel"`, when it is the same for
            every sample; `RewardScorer.score(model_sizes=...)` gives one per sample.
        segmenter: makes the mask of `mask_iou` from the answer's box and points, in place of a polygon: a name of
            `dpad_fast.segmenters`, such as "sam2:FOLDER".
    """

    name: str = "dpad"
    terms: tuple[str, ...] = ("think_format", "answer_format", "iou", "box_l1", "point_l1", "discriminative")
    weights: Mapping[str, float] = field(default_factory=dict)
    tags: tuple[str, ...] = ("think", "answer", "caption")
    strip: bool = True
    answer: str = "strict"
    gate: bool = True
    geometry: str = "box"
    iou_threshold: float = 0.5
    box_l1_threshold: float = 10.0
    point_threshold: float = 100.0
    mask_threshold: float | None = None
    max_objects: int = 120
    shape: str = "binary"
    alpha: float = 50.0
    tau: float = 0.25
    region: str = "box"
    contrast: str = "image"
    long_caption: str = "zero"
    coordinates: str = "pixel"
    model_size: tuple[int, int] | None = None
    segmenter: str | None = None

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r:.80}")
        self._check_tuples()
        self._check_numbers()
        self._check_together()

    def _check_tuples(self) -> None:
        for name in ("terms", "tags"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
                raise ValueError(f"{name} must be a list of names, got {value!r:.80}")
            object.__setattr__(self, name, tuple(value))
        if self.tags not in TAG_ORDERS:
            raise ValueError(f"tags must be [think, answer] or [think, answer, caption], got {list(self.tags)!s:.80}")
        for i, term in enumerate(self.terms):
            if term not in TERMS:
                raise ValueError(f"terms[{i}] is {term!r:.80}; known terms: {', '.join(TERMS)}")
        if not self.terms or len(set(self.terms)) != len(self.terms):
            raise ValueError(f"terms must name at least one term and each only once, got {list(self.terms)!s:.80}")
        if not isinstance(self.weights, Mapping):
            raise ValueError(f"weights must map term names to numbers, got {self.weights!r:.80}")
        for name, weight in self.weights.items():
            if name not in self.terms:
                raise ValueError(f"weights[{name!r:.80}] names no term of this configuration: {', '.join(self.terms)}")
            if not _is_number(weight):
                raise ValueError(f"weights[{name!r:.80}] must be a finite number up to 1e30, got {weight!r:.80}")
        object.__setattr__(self, "weights", {name: float(weight) for name, weight in self.weights.items()})

    def _check_numbers(self) -> None:
        for name in ("iou_threshold", "box_l1_threshold", "point_threshold", "alpha", "tau"):
            if not _is_number(getattr(self, name)):
                raise ValueError(f"{name} must be a finite number up to 1e30, got {getattr(self, name)!r:.80}")
        if self.mask_threshold is not None and not _is_number(self.mask_threshold):
            raise ValueError(
                f"mask_threshold must be None or a finite number up to 1e30, got {self.mask_threshold!r:.60}"
            )
        for name in ("gate", "strip"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r:.80}")
        if type(self.max_objects) is not int or not 1 <= self.max_objects <= MAX_OBJECTS:
            raise ValueError(
                f"max_objects must be a whole number from 1 to {MAX_OBJECTS}, got {self.max_objects!r:.80}"
            )
        if self.model_size is not None:
            object.__setattr__(self, "model_size", whole_size(self.model_size, "model_size"))

    def _check_together(self) -> None:
        if self.geometry == "mask" and any(term in self.terms for term in BOX_TERMS):
            # The box terms would silently score boxes that a polygon answer need not have.
            object.__setattr__(self, "terms", _swap_in_mask_term(self.terms))
            kept = {name: weight for name, weight in self.weights.items() if name in self.terms}
            object.__setattr__(self, "weights", kept)
        self._check_segmenter()
        objects_only = [term for term in self.terms if term == "accuracy"]
        if (self.answer == "objects") != bool(objects_only) and (objects_only or self._uses_single_object()):
            raise ValueError(
                f"answer={self.answer!r} does not go with terms {list(self.terms)}: 'accuracy' reads a list of objects "
                "(answer='objects'), the other geometry terms and 'discriminative' with region='predicted' read one"
            )

    def _check_segmenter(self) -> None:
        if self.segmenter is None:
            if self.geometry == "box" and "mask_iou" in self.terms:
                raise ValueError("terms name mask_iou, which needs geometry='mask' (polygons) or a segmenter")
            return
        if not isinstance(self.segmenter, str) or not self.segmenter:
            raise ValueError(f"segmenter must be the name of one, or None, got {self.segmenter!r:.80}")
        if self.geometry == "mask" or "mask_iou" not in self.terms:
            raise ValueError(
                f"segmenter is {self.segmenter!r:.80}, which needs the term 'mask_iou' and geometry='box': "
                f"got terms {list(self.terms)} and geometry={self.geometry!r}"
            )

    def _uses_single_object(self) -> bool:
        return any(term in self.terms for term in (*BOX_TERMS, "mask_iou"))

    @property
    def needs_encoder(self) -> bool:
        """Whether a CLIP model is needed."""
        return "discriminative" in self.terms

    def weight(self, term: str) -> float:
        """The weight of one term in the total."""
        return self.weights.get(term, 1.0)

    def replace(self, **overrides: Any) -> RewardConfig:
        """A copy with some fields changed; unknown names are rejected."""
        return RewardConfig.from_dict({**self.to_dict(), **_known(overrides)})

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` reads back, for YAML and JSON."""
        plain = asdict(self)
        plain["terms"], plain["tags"] = list(self.terms), list(self.tags)
        plain["model_size"] = None if self.model_size is None else list(self.model_size)
        return plain

    def __hash__(self) -> int:
        values = (getattr(self, entry.name) for entry in fields(self))
        return hash(tuple(frozenset(value.items()) if isinstance(value, Mapping) else value for value in values))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RewardConfig:
        """Builds a configuration from plain data; a `preset` key names the preset that the rest overrides.

        Raises:
            ValueError: an unknown key (named, with the known ones), or a value out of its range.
        """
        given = dict(values)
        preset = given.pop("preset", None)
        if preset is not None:
            return cls.preset(preset, **given)
        _known(given)
        return cls(**given)

    @classmethod
    def from_yaml(cls, source: str | os.PathLike[str]) -> RewardConfig:
        """Reads a YAML file, or YAML text (recognised by a newline or a colon followed by a space)."""
        text = source if isinstance(source, str) and ("\n" in source or ": " in source) else Path(source).read_text()
        values = yaml.safe_load(text) or {}
        if not isinstance(values, dict):
            raise ValueError(
                f"a reward configuration must be a mapping of names to values, got {type(values).__name__}"
            )
        return cls.from_dict(values)

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> RewardConfig:
        """A named configuration, with fields changed: `RewardConfig.preset("dpad", shape="margin")`."""
        from dpad_fast.rewards.presets import PRESETS

        if not isinstance(name, str) or name not in PRESETS:  # YAML may hold a list there
            raise ValueError(f"unknown preset {name!r:.80}; known presets: {', '.join(PRESETS)}")
        return cls.from_dict({**PRESETS[name], **_known(overrides)})


def _known(values: Mapping[str, Any]) -> Mapping[str, Any]:
    names = [entry.name for entry in fields(RewardConfig)]
    for key in values:
        if key not in names:
            close = difflib.get_close_matches(str(key), names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"unknown reward setting {key!r:.80}{hint} Known settings: {', '.join(names)}")
    return values


# Times a term, and over all terms, this stays finite in float32; times zero it stays zero.
_LARGEST = 1e30


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _swap_in_mask_term(terms: tuple[str, ...]) -> tuple[str, ...]:
    kept = [term for term in terms if term not in BOX_TERMS and term != "mask_iou"]
    place = next(i for i, term in enumerate(terms) if term in (*BOX_TERMS, "mask_iou"))
    place = sum(term in kept for term in terms[:place])
    return (*kept[:place], "mask_iou", *kept[place:])
