"""Embeddings of a training set's pictures before training begins: they never change while CLIP is frozen."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dpad_fast.clip.images import find_pictures
from dpad_fast.clip.regions import EmptyRegion, Region, region_of
from dpad_fast.types import Sample

if TYPE_CHECKING:
    from dpad_fast.clip.encoder import ClipEncoder

_PICTURES = 16  # worked on together: bounds what is decoded at once


def embed_ahead(encoder: ClipEncoder, samples: Iterable[Sample]) -> int:
    """Puts the whole picture and the ground-truth region of every sample into the encoder's cache, in float32.

    A picture on disk is stored under two keys, of its file and of its pixels, so that it is found whether a trainer
    passes paths, encoded bytes or decoded images (of the same size: a resized picture is another picture).

    Args:
        encoder: with a cache that has a folder, or the work is lost with the process.
        samples: those without a box are embedded as whole pictures only.

    Returns:
        The number of different regions.

    Raises:
        ValueError: a picture cannot be read; names its number.
    """
    places: dict[object, None] = {}
    pending: list[Sample] = []
    for sample in samples:
        pending.append(sample)
        if len(pending) == _PICTURES:
            places.update(dict.fromkeys(_embed(encoder, pending)))
            pending = []
    if pending:
        places.update(dict.fromkeys(_embed(encoder, pending)))
    return len(places)


def _embed(encoder: ClipEncoder, samples: list[Sample]) -> list[object]:
    pictures, index = find_pictures([sample.image for sample in samples], None)
    regions: dict[tuple[int, Region], None] = {}
    for sample, place in zip(samples, index, strict=True):
        size = pictures[place].size
        regions[place, None] = None
        if sample.target.box is not None:
            with suppress(EmptyRegion):  # the whole picture is of use without it
                regions[place, region_of(sample.target.box, size, sample.target.image_size)] = None
    decoded = [picture.decoded() for picture in pictures]
    values = encoder.embed_regions(decoded, list(regions), exact=True)
    encoder.remember_regions([(pictures[place].key, box) for place, box in regions], values)
    return [(decoded[place].key, box) for place, box in regions]


def describe(folder: str | os.PathLike[str]) -> str:
    """How large the file of embeddings in a folder is."""
    from dpad_fast.clip.store import FILE

    return f"{(Path(folder) / FILE).stat().st_size / 1e6:.1f} MB in {Path(folder) / FILE}"
