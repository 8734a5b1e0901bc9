"""CLIP's image preprocessing as numbers, read from a processor's configuration, and applied by one op."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from PIL import Image

from dpad_fast.clip.regions import Region

_INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}  # Pillow's codes


class PixelSource(Protocol):
    """An image for an encoder: a key that differs between contents, and its pixels. `Picture` is the usual one."""

    @property
    def key(self) -> Hashable:
        """Equal for equal contents."""
        ...

    @property
    def new_pixels(self) -> int:
        """How many pixels come into memory when it is read; 0 where it is there already."""
        ...

    def pixels(self) -> torch.Tensor:
        """uint8 [H, W, 3]."""
        ...

    def in_own_mode(self) -> Any:
        """The same, or a PIL image where its mode is neither RGB nor grey."""
        ...


@dataclass(frozen=True)
class Preprocess:
    """How a region becomes a model input.

    Attributes:
        size: side of the square input.
        resize: "shortest" (CLIP: shorter side, then centre crop), "squash" (SigLIP), "longest" (pad).
        interpolation: "bicubic" or "bilinear", antialiased.
        mean: per-channel mean, of values in 0..1.
        std: per-channel standard deviation.
        center: rounding of the centre crop's offset: "floor" (transformers) or "round" (open_clip).
        colour: when a picture becomes RGB: "first" (transformers), with alpha laid over white; or "last" (open_clip):
            it is resized in its own mode, and alpha is dropped.
        transform: for "last", open_clip's own transform, which is applied to images that are neither RGB nor grey.
    """

    size: int
    resize: str
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    center: str = "floor"
    colour: str = "first"
    transform: Callable[[Image.Image], torch.Tensor] | None = field(default=None, repr=False, compare=False)

    def read(self, picture: PixelSource) -> Any:
        """A picture as `__call__` takes it: uint8 [3, H, W], or a PIL image in its own mode."""
        return _planes_first(picture.pixels() if self.transform is None else picture.in_own_mode())

    def __call__(
        self,
        images: Sequence[Any],
        boxes: Sequence[Region],
        image_index: Sequence[int],
        device: torch.device | None = None,
    ) -> torch.Tensor:
        """Float32 [K, 3, size, size] of K regions; images as `read` gives them, None means the whole image.

        With `device` the images are copied there unchanged, and the regions are made there.
        """
        from dpad_fast._native.images import in_own_mode

        if self.transform is None:
            return self._by_the_op(images, boxes, image_index, device)
        images = [_planes_first(in_own_mode(image, f"images[{i}]")) for i, image in enumerate(images)]
        if not any(isinstance(image, Image.Image) for image in images):
            return self._by_the_op(images, boxes, image_index, device)
        made: dict[int, torch.Tensor] = {}
        plain = []
        for row, (box, number) in enumerate(zip(boxes, image_index, strict=True)):
            image = images[number]
            if isinstance(image, Image.Image):
                made[row] = self.transform(image if box is None else image.crop(box)).to(device)
            else:
                plain.append(row)
        if plain:
            used = {number: place for place, number in enumerate(dict.fromkeys(image_index[row] for row in plain))}
            numbers = [used[image_index[row]] for row in plain]
            rest = self._by_the_op([images[number] for number in used], [boxes[row] for row in plain], numbers, device)
            made.update(zip(plain, rest, strict=True))
        where = made[plain[0]].device if plain else made[0].device
        return torch.stack([made[row].to(where) for row in range(len(made))])

    def _by_the_op(
        self,
        images: Sequence[Any],
        boxes: Sequence[Region],
        image_index: Sequence[int],
        device: torch.device | None,
    ) -> torch.Tensor:
        from dpad_fast.ops.roi_clip_preprocess import roi_clip_preprocess

        return roi_clip_preprocess(
            list(images),
            list(boxes),
            list(image_index),
            size=self.size,
            resize=self.resize,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
            dtype=torch.float32,
            center=self.center,
            device=device,
        )

    @classmethod
    def from_transformers(cls, processor: Any) -> Preprocess:
        """Reads a processor or image processor of transformers.

        Raises:
            ValueError: it does something that cannot be expressed here; names the setting.
        """
        source = getattr(processor, "image_processor", processor)
        for name in ("do_resize", "do_rescale", "do_normalize"):
            if not getattr(source, name, True):
                raise ValueError(f"the image processor has {name}=False, which is not supported")
        factor = getattr(source, "rescale_factor", 1 / 255)
        if abs(factor * 255 - 1) > 1e-6:
            raise ValueError(f"the image processor has rescale_factor={factor}, expected 1/255")
        interpolation = _INTERPOLATIONS.get(int(source.resample))
        if interpolation is None:
            raise ValueError(f"the image processor resamples by {source.resample!r:.80}, expected bicubic or bilinear")
        size = _plain(source.size)
        crop = _plain(getattr(source, "crop_size", None)) if getattr(source, "do_center_crop", False) else None
        side, resize = _side(size, crop)
        mean, std = _per_channel(source.image_mean, "image_mean"), _per_channel(source.image_std, "image_std")
        return cls(side, resize, interpolation, mean, std, "floor")

    @classmethod
    def from_open_clip(cls, transform: Any) -> Preprocess:
        """Reads the transform that open_clip's factory returns for evaluation.

        Raises:
            ValueError: a step that is not open_clip's own evaluation pipeline; names it.
        """
        steps = {type(step).__name__: step for step in getattr(transform, "transforms", ())}
        if "Normalize" not in steps or not {"Resize", "ResizeKeepRatio"} & set(steps):
            raise ValueError(f"preprocess is not open_clip's evaluation transform: {transform!r:.80}")
        mean, std = _per_channel(steps["Normalize"].mean, "mean"), _per_channel(steps["Normalize"].std, "std")
        side, resize = _open_clip_side(steps)
        interpolation = _mode(steps["ResizeKeepRatio" if resize == "longest" else "Resize"].interpolation)
        return cls(side, resize, interpolation, mean, std, "round", "last", transform)


def _planes_first(image: Any) -> Any:
    """Pixels [H, W, 3] as a view [3, H, W], which is unambiguous for any H and W.

    The op takes the rows of [H, W, 3] with H of 1, 3 or 4 for channels.
    """
    return image.permute(2, 0, 1) if isinstance(image, torch.Tensor) else image


def _open_clip_side(steps: Mapping[str, Any]) -> tuple[int, str]:
    if "ResizeKeepRatio" in steps:
        step = steps["ResizeKeepRatio"]
        if step.longest != 1.0 or "CenterCropOrPad" not in steps:
            raise ValueError(f"preprocess resizes by {step!r:.80}, which is not supported")
        fill = getattr(steps["CenterCropOrPad"], "fill", 0)
        if fill != 0:
            raise ValueError(f"preprocess pads with the colour {fill!r:.80}; 0 is supported")
        return _square(step.size), "longest"
    step = steps["Resize"]
    if "CenterCrop" not in steps:
        return _square(step.size), "squash"
    side = _square(steps["CenterCrop"].size)
    short = step.size if isinstance(step.size, int) else step.size[0]
    if short != side:
        raise ValueError(f"preprocess resizes to {short} but crops to {side}; they must be equal")
    return side, "shortest"


def _plain(size: Any) -> dict[str, int]:
    if size is None:
        return {}
    if isinstance(size, int):
        return {"height": size, "width": size}
    items = size.items() if isinstance(size, Mapping) else vars(size).items()
    return {key: int(value) for key, value in items if value is not None}


def _side(size: dict[str, int], crop: dict[str, int] | None) -> tuple[int, str]:
    if "shortest_edge" in size:
        wanted = (size["shortest_edge"],) * 2
        if crop is None or (crop.get("height"), crop.get("width")) != wanted:
            raise ValueError(f"the image processor resizes to {size} and crops to {crop}; equal sides are supported")
        return size["shortest_edge"], "shortest"
    height, width = size.get("height"), size.get("width")
    if height is None or height != width:
        raise ValueError(f"the image processor resizes to {size}; a square or shortest_edge is supported")
    if crop is not None and (crop.get("height"), crop.get("width")) != (height, width):
        raise ValueError(f"the image processor resizes to {size} and crops to {crop}; equal sides are supported")
    return height, "squash"


def _per_channel(values: Any, name: str) -> tuple[float, float, float]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) != 3:
        raise ValueError(f"{name} must hold 3 numbers, got {numbers!s:.80}")
    return numbers


def _square(size: Any) -> int:
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or sides[0] != sides[1]:
        raise ValueError(f"preprocess gives inputs of {sides}; a square is supported")
    return int(sides[0])


def _mode(interpolation: Any) -> str:
    name = str(getattr(interpolation, "value", interpolation))
    if name not in ("bicubic", "bilinear"):
        raise ValueError(f"preprocess interpolates by {name!r:.80}, expected bicubic or bilinear")
    return name
