"""Crop, antialiased resize, centre crop, normalise, layout and dtype for CLIP-like encoders, in one pass."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import PIL
import torch

from dpad_fast._native import extension
from dpad_fast._native.boxes import host_boxes
from dpad_fast._native.images import as_pixels
from dpad_fast._native.memory import new_output
from dpad_fast._native.upload import upload_images
from dpad_fast.ops._crop_input import WHOLE_IMAGE as WHOLE_IMAGE
from dpad_fast.ops._crop_input import as_boxes, as_index
from dpad_fast.ops._library import register

RESIZES = ("shortest", "squash", "longest")
INTERPOLATIONS = ("bicubic", "bilinear")
CENTERS = ("floor", "round")
ORDERS = ("horizontal", "pillow-12.3", "pillow-13")
DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_MAX_SIZE = 1 << 14


def order_of_pillow(version: str) -> str:
    """Name the rule for the order of the passes that a version of Pillow follows."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers >= (13, 0):
        return "pillow-13"
    return "pillow-12.3" if numbers >= (12, 3) else "horizontal"


_INSTALLED_ORDER = order_of_pillow(PIL.__version__)


def roi_clip_preprocess(
    images: Sequence[Any],
    boxes: torch.Tensor | Sequence[Any] | None,
    image_index: torch.Tensor | Sequence[int] | None = None,
    *,
    size: int = 224,
    resize: str = "shortest",
    interpolation: str = "bicubic",
    center: str = "floor",
    order: str | None = None,
    mean: Sequence[float] = CLIP_MEAN,
    std: Sequence[float] = CLIP_STD,
    dtype: torch.dtype = torch.float32,
    out: torch.Tensor | None = None,
    device: torch.device | str | None = None,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> torch.Tensor:
    """Prepare K regions of M images for an image encoder.

    Before normalisation every pixel is the one that Pillow gives for `image.crop(box)`, `.resize(...)` and a centre
    crop; the normalised float32 values are those of transformers' `CLIPImageProcessorPil`. Neither the crop nor the
    resized picture is ever in memory (on a GPU, lines between the two passes are, as bytes), and what the centre crop
    drops is not computed.

    Args:
        images: M images of any sizes: PIL images of any mode, or uint8 arrays or tensors [H, W], [H, W, C] or [C, H, W]
            with C in 1, 3, 4. PIL images are turned as their EXIF says, as transformers' `load_image` does, whose array
            goes in as it is. All are converted to RGB as transformers does; alpha is laid over white. All tensors are
            on one device.
        boxes: K boxes (x1, y1, x2, y2) in pixels of their turned image, x2 and y2 exclusive; fractions are rounded half
            to even as `Image.crop` does; outside of the image is black. A sequence with None for a whole image, or a
            tensor [K, 4] where a row of `WHOLE_IMAGE` says the same. None: every entry of `image_index` as a whole.
        image_index: K numbers of images; None where there is one box for each image, in order.
        size: side of the result in pixels, 1 to 16,384.
        resize: `shortest` (CLIP): the shorter side becomes `size` and the middle is cut out; `squash` (SigLIP): both
            sides become `size`; `longest`: the longer side becomes `size` and the rest is black.
        interpolation: `bicubic` or `bilinear`, both antialiased.
        center: where an odd margin of the centre crop goes: `floor` (transformers) or `round`, half to even
            (torchvision and open_clip).
        order: which of the two passes is first, with 8 bits between them, so that it can move a pixel by a few grey
            levels. `pillow-13`: vertical where the height loses more than twice as many pixels as the width;
            `pillow-12.3`: vertical where the height shrinks and is over 100 times the width; `horizontal`: always
            horizontal, which is every Pillow before 12.3. None: what the installed Pillow does.
        mean: 3 numbers, subtracted after the pixels were divided by 255.
        std: 3 numbers, not 0, by which the result is divided.
        dtype: of the result: float32, bfloat16 or float16, rounded to nearest even from float32.
        out: a contiguous or channels-last tensor [K, 3, size, size] of that dtype to write to.
        device: where to compute. Images on the host are copied there together, from pinned memory and without waiting.
            None: where the images are.
        memory_format: of the result where `out` is not given: `torch.contiguous_format` or `torch.channels_last`.

    Returns:
        [K, 3, size, size] on the images' device, or on `device`; `out` where it was given.

    Raises:
        ValueError: an argument is not as described, or a box has no area; the message names the index.
    """
    order = _INSTALLED_ORDER if order is None else order
    _check_options(size, resize, interpolation, center, order, dtype)
    if memory_format not in (torch.contiguous_format, torch.channels_last):
        raise ValueError(f"memory_format must be contiguous_format or channels_last, got {memory_format}")
    if not hasattr(images, "__iter__"):
        raise ValueError(f"images must be a list of images, got {type(images).__name__}")
    pixels = [as_pixels(image, f"images[{i}]") for i, image in enumerate(images)]
    if device is not None:
        pixels = upload_images(pixels, torch.device(device))
    numbers = as_index(image_index, boxes, len(pixels))
    corners = as_boxes(boxes, numbers.shape[0])
    if not pixels:
        raise ValueError("images is empty")
    where = [image.device for image in pixels]
    if where.count(where[0]) < len(where):
        i = next(i for i, there in enumerate(where) if there != where[0])
        raise ValueError(f"images[{i}] is on {where[i]}, but images[0] on {where[0]}")
    scale = (_as_floats(mean, "mean"), _as_floats(std, "std"))
    for i, value in enumerate(scale[1]):
        if abs(value) <= 2.0**-150:
            raise ValueError(f"std[{i}] must not be 0 in float32, got {value}")
    options = (size, resize, interpolation, center, order, *scale)
    if out is None and memory_format == torch.channels_last:
        shape = (corners.shape[0], 3, size, size)
        out = torch.empty(shape, dtype=dtype, device=where[0], memory_format=memory_format)
    if out is None:
        return _op(pixels, corners, numbers, *options, dtype)
    _check_out(out, (corners.shape[0], 3, size, size), dtype, where[0])
    _op_out(pixels, corners, numbers, *options, out)
    return out


def _check_options(size: int, resize: str, interpolation: str, center: str, order: str, dtype: torch.dtype) -> None:
    if isinstance(size, bool) or not isinstance(size, (int, torch.SymInt)) or not 1 <= size <= _MAX_SIZE:
        raise ValueError(f"size must be an integer from 1 to {_MAX_SIZE}, got {size!r:.80}")
    if resize not in RESIZES:
        raise ValueError(f"resize must be one of {', '.join(RESIZES)}, got {resize!r:.80}")
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}, got {interpolation!r:.80}")
    if center not in CENTERS:
        raise ValueError(f"center must be one of {', '.join(CENTERS)}, got {center!r:.80}")
    if order not in ORDERS:
        raise ValueError(f"order must be None or one of {', '.join(ORDERS)}, got {order!r:.80}")
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be float32, bfloat16 or float16, got {dtype}")


def _check_out(out: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
    if tuple(out.shape) != shape:
        raise ValueError(f"out must be {list(shape)}, got {list(out.shape)}")
    if out.dtype != dtype:
        raise ValueError(f"out must be {dtype}, got {out.dtype}")
    if out.device != device:
        raise ValueError(f"out must be on {device}, got {out.device}")
    if not out.is_contiguous() and not out.is_contiguous(memory_format=torch.channels_last):
        raise ValueError(f"out must be contiguous or channels-last, got strides {list(out.stride())}")


def _as_floats(values: Sequence[float], name: str) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be 3 finite numbers, got {values!r:.80}") from None
    if len(numbers) != 3 or not all(abs(number) < 2.0**127 for number in numbers):
        raise ValueError(f"{name} must be 3 finite numbers, got {numbers!s:.80}")
    return numbers


_simd_level = "best"  # no higher instruction set is used than this; tests lower it to compare them


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What the registered ops are given, in their order; the one that writes to `out` has its dtype from there."""

    images: list[torch.Tensor]
    boxes: torch.Tensor
    image_index: torch.Tensor
    size: int
    resize: str
    interpolation: str
    center: str
    order: str
    mean: list[float]
    std: list[float]
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the result."""
        return self.boxes.shape[0], 3, self.size, self.size


def _cpu(inputs: _Inputs) -> torch.Tensor:
    out = new_output(inputs.shape, inputs.dtype)
    _cpu_out(inputs, out)
    return out


def _cpu_out(inputs: _Inputs, out: torch.Tensor) -> None:
    if not out.is_contiguous():  # channels-last, which the C++ does not write
        planes = torch.empty(out.shape, dtype=out.dtype, device="cpu")
        _cpu_out(inputs, planes)
        out.copy_(planes)
        return
    images = [_in_a_known_layout(image) for image in inputs.images]  # keeps copies alive for the call
    boxes, image_index = host_boxes(inputs.boxes, inputs.image_index)
    extension.C.roi_clip_preprocess(
        [_described(image) for image in images], boxes.data_ptr(), image_index.data_ptr(), boxes.shape[0], inputs.size,
        inputs.resize, inputs.interpolation, inputs.center, inputs.order, inputs.mean, inputs.std,
        DTYPES[inputs.dtype], _simd_level, torch.get_num_threads(), out.data_ptr(),
    )  # fmt: skip


def _layout(image: torch.Tensor) -> str | None:
    """Say how C++ reads [H, W, C]: 3 or 4 neighbouring bytes a pixel, or planes; None where it cannot."""
    _, pixel, channel = image.stride()
    if channel == 1 and pixel in (3, 4):
        return "rgb" if pixel == 3 else "rgbx"
    return "planar" if pixel == 1 else None


def _in_a_known_layout(image: torch.Tensor) -> torch.Tensor:
    # clone rather than contiguous(), which leaves the strides of sides of length 1 as they are
    return image if _layout(image) is not None else image[..., :3].clone(memory_format=torch.contiguous_format)


def _described(image: torch.Tensor) -> tuple[int, int, int, str | None, int, int]:
    row, _, channel = image.stride()
    return image.data_ptr(), image.shape[0], image.shape[1], _layout(image), row, channel


def _cuda(inputs: _Inputs) -> torch.Tensor:
    out = inputs.images[0].new_empty(inputs.shape, dtype=inputs.dtype)
    _cuda_out(inputs, out)
    return out


def _cuda_out(inputs: _Inputs, out: torch.Tensor) -> None:
    from dpad_fast.kernels import roi_clip_preprocess as kernel

    kernel.launch(
        inputs.images, inputs.boxes, inputs.image_index, out, resize=inputs.resize, interpolation=inputs.interpolation,
        center=inputs.center, order=inputs.order, mean=inputs.mean, std=inputs.std,
    )  # fmt: skip


def _fake(inputs: _Inputs) -> torch.Tensor:
    return inputs.images[0].new_empty(inputs.shape, dtype=inputs.dtype)


def _fake_out(inputs: _Inputs, out: torch.Tensor) -> None:
    return None


def _from_arguments(compute: Callable[[_Inputs], torch.Tensor]) -> Callable[..., torch.Tensor]:
    """An implementation as torch calls it, with every argument by itself."""
    return lambda *arguments: compute(_Inputs(*arguments))


def _from_arguments_out(compute: Callable[[_Inputs, torch.Tensor], None]) -> Callable[..., None]:
    """The same where the last argument is `out` in the place of a dtype."""

    def run(*arguments: Any) -> None:
        out: torch.Tensor = arguments[-1]
        compute(_Inputs(*(*arguments[:-1], out.dtype)), out)

    return run


_ARGUMENTS = (
    "Tensor[] images, Tensor boxes, Tensor image_index, SymInt size, str resize, str interpolation, str center, "
    "str order, float[] mean, float[] std"
)
_op = register(
    "roi_clip_preprocess",
    f"({_ARGUMENTS}, ScalarType dtype) -> Tensor",
    cpu=_from_arguments(_cpu),
    cuda=_from_arguments(_cuda),
    fake=_from_arguments(_fake),
)
_op_out = register(
    "roi_clip_preprocess_out",
    f"({_ARGUMENTS}, Tensor(a!) out) -> ()",
    cpu=_from_arguments_out(_cpu_out),
    cuda=_from_arguments_out(_cuda_out),
    fake=_from_arguments_out(_fake_out),
)
