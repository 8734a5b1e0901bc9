"""The largest error of similarities in reduced precision against float32, measured on the loaded model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from dpad_fast.clip.inputs import input_stream, make_inputs
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


class Margins(NamedTuple):
    """Margins for the error of S1 - S2 and of S1 against float32.

    Attributes:
        both: with captions and pictures reduced.
        image: with only the pictures reduced.
    """

    both: float = 0.0
    image: float = 0.0


def measure_margins(
    forwards: Mapping[bool, Forward],
    tokens: Tokens,
    preprocess: Preprocess,
    device: torch.device,
    threads: int,
    name: str,
) -> Margins:
    """The largest error of S1 - S2 and of S1 over fixed captions and generated pictures, times `SAFETY`.

    Args:
        forwards: both forwards of a guarded encoder, by whether it is exact (float32).
        tokens: the model's tokenizer.
        preprocess: the model's preprocessing of images.
        device: where the model runs.
        threads: CPU threads.
        name: of the encoder, for messages.
    """
    captions = _calibration_ids(tokens)
    pictures = [_Generated(i) for i in range(_PICTURES)]
    regions = [(i, box) for i in range(_PICTURES) for box in (None, (16, 16, 80, 72))]
    inputs = make_inputs(preprocess, pictures, regions, threads, input_stream(device))
    text = {exact: unit(forward.texts(captions, threads), name) for exact, forward in forwards.items()}
    image = {exact: unit(forward.images(inputs, threads), name) for exact, forward in forwards.items()}
    truth = text[True] @ image[True].T
    return Margins(_largest(text[False] @ image[False].T - truth), _largest(text[True] @ image[False].T - truth))


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
