"""How far reduced similarities stray from float32 ones, measured on the loaded model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from dpad_fast.clip.cache import EmbeddingCache

if TYPE_CHECKING:
    from dpad_fast.clip.encoder import ClipEncoder
    from dpad_fast.clip.tokens import Ids

# The largest error seen on the sample, times this, is taken as the largest there will be.
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


def measure_margins(encoder: ClipEncoder) -> tuple[float, float]:
    """The largest error of S1 - S2 and of S1 over fixed captions and generated pictures, times `SAFETY`.

    Returns:
        With captions and pictures reduced; and with only the pictures.
    """
    texts = [ids for ids in _calibration_ids(encoder) if encoder.tokens.fits(ids)]
    pictures = [_Generated(i) for i in range(_PICTURES)]
    regions = [(i, box) for i in range(_PICTURES) for box in (None, (16, 16, 80, 72))]
    text, image = {}, {}
    # Its own cache: a margin is no reward, and must not fill the user's file.
    kept, encoder.cache = encoder.cache, EmbeddingCache(0)
    try:
        for exact in (True, False):
            text[exact] = encoder.embed_ids(texts, exact=exact)
            image[exact] = encoder.embed_regions(pictures, regions, exact=exact)
    finally:
        encoder.cache = kept
    truth = text[True] @ image[True].T
    return _largest(text[False] @ image[False].T - truth), _largest(text[True] @ image[False].T - truth)


def _largest(error: torch.Tensor) -> float:
    pairs = error.view(len(error), _PICTURES, 2)
    return SAFETY * float(torch.maximum(pairs.abs().max(), pairs.diff(dim=-1).abs().max()))


def _calibration_ids(encoder: ClipEncoder) -> list[Ids]:
    # Longer captions err more, so each is also joined with those before it.
    texts = [*_CAPTIONS, *(", ".join(_CAPTIONS[:count]) for count in range(2, len(_CAPTIONS)))]
    return [encoder.tokens.truncate(ids) for ids in encoder.tokens.encode(texts) if not isinstance(ids, str)]


class _Generated:
    """Noise at several scales, which is as far from flat as photographs are."""

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
