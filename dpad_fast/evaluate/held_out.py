"""Held-out samples to measure a policy on: scenes of the shapes world, or samples of a form of data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from PIL import Image

from dpad_fast.clip.images import find_pictures
from dpad_fast.data import shapes
from dpad_fast.ops.polygons import rasterize_polygons
from dpad_fast.segmenters.drawn import box_mask
from dpad_fast.train.config import TrainConfig
from dpad_fast.train.prompts import samples
from dpad_fast.types import Sample, Target


def held_out(config: TrainConfig) -> Iterator[Sample]:
    """The samples that a run's policies are measured on, one at a time.

    Args:
        config: its `evaluation`.

    Yields:
        Samples with a decoded picture and a mask: the target's own, else that of its polygons, else that of its box.

    Raises:
        ValueError: for a sample that cannot be read, or has none of the three; names it.
    """
    evaluation = config.evaluation
    if not evaluation.data.path:
        yield from (shapes.sample(evaluation.seed, index) for index in range(evaluation.scenes))
        return
    for sample in samples(evaluation.data):
        picture = find_pictures([sample.image], None)[0][0]
        image = Image.fromarray(picture.pixels().numpy())
        yield replace(sample, image=image, target=_with_mask(sample, image.size))


def _with_mask(sample: Sample, shown: tuple[int, int]) -> Target:
    target = sample.target
    if target.mask is not None:
        return target
    width, height = size = target.image_size or shown
    if target.polygons:
        mask = rasterize_polygons(list(target.polygons), width, height, rule="opencv", out="dense").numpy().any(axis=0)
    elif target.box is not None:
        mask = box_mask(target.box, size)
    else:
        raise ValueError(f"evaluation.data: {sample.id} has neither mask, polygons nor box")
    return replace(target, mask=mask, image_size=size)
