"""How far similarities in reduced precision err from float32's, measured on the loaded model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from dpad_fast.clip.inputs import make_inputs
from dpad_fast.clip.preprocess import Preprocess
from dpad_fast.clip.tokens import Ids, Tokens
from dpad_fast.clip.tower.forward import Forward, unit

# The margin is the largest error on the sample times this factor.
SAFETY = 2.0
_CAPTIONS = (
    "the small red circle near the left edge",
    "a person who stands behind the table",
    "the dog",
    "a metal kettle with a black handle that one could boil water in",
    "the striped object to the right of the largest one",
    "an image",
    "the white van parked beside the trees, seen from behind",
    "food",
)
_PICTURES = 12


class Look(NamedTuple):
    """A first look in reduced precision, as measured on a model.

    Attributes:
        precision: of its products: "float16", "tf32", "bfloat16" or "int16".
        margin: for the error of S1 - S2 and of S1 against float32, with captions and pictures reduced; NaN where an
            embedding is not finite.
        image_margin: the same with only the pictures reduced.
        near: the share of comparisons whose S1 - S2 is within `margin` of 0: how many a guard would expect to repeat.
        used: whether the encoder takes it.
    """

    precision: str
    margin: float
    image_margin: float
    near: float
    used: bool = False

    @property
    def sound(self) -> bool:
        """Whether all embeddings were finite: a value beyond float16's range makes one that is not."""
        return math.isfinite(self.margin) and math.isfinite(self.image_margin)

    def __str__(self) -> str:
        if not self.sound:
            return f"{self.precision}: not finite or not the model's"
        used = ", used" if self.used else ""
        return f"{self.precision}: margin {self.margin:.1e}, {self.near:.1%} of comparisons near{used}"


class Calibration:
    """Fixed captions and generated pictures, embedded by the exact forward, to measure others against.

    Args:
        exact: float32's forward.
        tokens: the model's tokenizer.
        preprocess: the model's preprocessing of images.
        threads: CPU threads.
        name: of the encoder, for messages.

    Raises:
        ValueError: an embedding of `exact` is not finite.
    """

    def __init__(
        self,
        exact: Forward,
        tokens: Tokens,
        preprocess: Preprocess,
        threads: int,
        name: str,
    ) -> None:
        self._threads, self._name = threads, name
        self._captions = _calibration_ids(tokens)
        pictures = [_Generated(i) for i in range(_PICTURES)]
        regions = [(i, box) for i in range(_PICTURES) for box in (None, (16, 16, 80, 72))]
        self._inputs = make_inputs(preprocess, pictures, regions, threads)
        self._text, self._image = self._embed(exact)
        self._truth = self._text @ self._image.T

    def look(self, reduced: Forward) -> Look:
        """The largest error of S1 - S2 and of S1 by a reduced forward, times `SAFETY`, and the share that is near."""
        text, image = self._embed(reduced, first=True)
        both = _largest(text @ image.T - self._truth)
        distance = self._truth.view(-1, 2).diff(dim=-1).abs()  # of each caption to each picture's two regions
        near = float((distance <= both).float().mean()) if math.isfinite(both) else 1.0
        return Look(reduced.precision, both, _largest(self._text @ image.T - self._truth), near)

    def _embed(self, forward: Forward, *, first: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        found = forward.texts(self._captions, self._threads), forward.images(self._inputs, self._threads)
        text, image = (unit(values.cpu(), self._name, first=first) for values in found)
        return text, image


def _largest(error: torch.Tensor) -> float:
    pairs = error.view(len(error), _PICTURES, 2)
    return SAFETY * float(torch.maximum(pairs.abs().max(), pairs.diff(dim=-1).abs().max()))


def _calibration_ids(tokens: Tokens) -> Sequence[Ids]:
    # Longer captions have larger errors, so each caption is also joined with those before it.
    texts = [*_CAPTIONS, *(", ".join(_CAPTIONS[:count]) for count in range(2, len(_CAPTIONS)))]
    rows = [tokens.truncate(ids) for ids in tokens.encode(texts) if not isinstance(ids, str)]
    return [ids for ids in dict.fromkeys(rows) if tokens.fits(ids)]


class _Generated:
    """Noise at several scales, which is as far from flat as photographs are."""

    new_pixels = 96 * 96

    def __init__(self, seed: int) -> None:
        self.key = ("calibration", seed)

    def pixels(self) -> torch.Tensor:
        generator = torch.Generator("cpu").manual_seed(self.key[1])
        total = torch.zeros(1, 3, 96, 96, dtype=torch.float32, device="cpu")
        for side in (3, 12, 96):
            coarse = torch.rand(1, 3, side, side, generator=generator, dtype=torch.float32, device="cpu")
            total += torch.nn.functional.interpolate(coarse, size=(96, 96), mode="bilinear")
        return (total[0] / 3 * 255).to(torch.uint8).permute(1, 2, 0).contiguous()

    def in_own_mode(self) -> torch.Tensor:
        return self.pixels()
