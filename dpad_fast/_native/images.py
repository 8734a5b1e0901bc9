"""Users' images as uint8 tensors [H, W, C], over the same memory wherever that is possible."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, _imaging

from dpad_fast._native import extension
from dpad_fast.pictures import check_pixels, decoding, plain_layout, upright

_CHANNELS = (1, 3, 4)
_COPIED = 1 << 26  # bytes; when the copies that digests are made of reach this, they are let go of


def as_pixels(image: Any, name: str) -> torch.Tensor:
    """View an image as uint8 [H, W, 3].

    Args:
        image: a PIL image of any mode, which is turned as its EXIF says; or a uint8 array or tensor [H, W], [H, W, C]
            or [C, H, W] with C in 1, 3, 4. As in transformers, a shape that fits both orders is [C, H, W].
        name: what to call it in an error, such as `images[3]`.

    Returns:
        A tensor with any strides. Grey is repeated by a stride of 0. Alpha is laid over white, rounded as transformers'
        Pillow processor does for the same type of input.

    Raises:
        ValueError: not an image, not uint8, no such layout, without a pixel, or it cannot be decoded.
    """
    if type(image) is torch.Tensor and image.dtype is torch.uint8 and image.layout is torch.strided:
        shape = image.shape
        if len(shape) == 3 and shape[2] == 3 and shape[0] > 4 and shape[1] > 0:
            return image  # the usual case, which shall not be looked at five more times
    if isinstance(image, Image.Image):
        return _from_pil(_opened(image, name), name)
    pixels = _by_rows(image, name)
    if pixels.shape[2] == 1:
        return pixels.expand(-1, -1, 3)
    return _over_white(pixels) if pixels.shape[2] == 4 else pixels


def in_own_mode(image: Any, name: str) -> torch.Tensor | Image.Image:
    """`as_pixels` of an RGB or grey image; an image with another mode, or with alpha, stays as it is.

    Returns:
        uint8 [H, W, 3], or a PIL image, decoded and upright: its mode is neither RGB nor L, or it has a transparent
        colour. An array or tensor with four channels is an image of mode RGBA.

    Raises:
        ValueError: as `as_pixels`, or there is no way from its mode to RGB.
    """
    if isinstance(image, Image.Image):
        opened = _opened(image, name)
        if opened.mode in ("RGB", "L") and opened.info.get("transparency") is None:
            return _from_pil(opened, name)
        with decoding(name):  # whatever resizes and converts it later can do so
            opened.load()
            opened.crop((0, 0, 1, 1)).resize((2, 2), Image.Resampling.BICUBIC).convert("RGB")
        return opened
    pixels = _by_rows(image, name)
    if pixels.shape[2] == 4:
        return Image.fromarray(pixels.cpu().contiguous().numpy())
    return pixels.expand(-1, -1, 3) if pixels.shape[2] == 1 else pixels


def pixels_within(content: bytes) -> torch.Tensor | None:
    """The pixels of a binary PPM or PGM, over its bytes: nothing is decoded or copied.

    Returns:
        uint8 [H, W, 3], only to be read; None where the bytes are another file (see `plain_layout`).
    """
    layout = plain_layout(content)
    if layout is None:
        return None
    height, width, colours, place = layout
    # torch warns of memory that it may not write to, and has no tensor that is only read.
    pixels = torch.from_numpy(np.asarray(_Lent(np.frombuffer(content, np.uint8, offset=place))))
    return pixels.view(height, width, colours).expand(-1, -1, 3)


class _Lent:
    """Memory that NumPy takes for writable; it keeps its owner."""

    def __init__(self, owner: np.ndarray[Any, Any]) -> None:
        self._owner = owner
        place, _ = owner.__array_interface__["data"]
        self.__array_interface__ = {**owner.__array_interface__, "data": (place, False)}


def _by_rows(image: Any, name: str) -> torch.Tensor:
    """An array or tensor as uint8 [H, W, C] with C in 1, 3, 4."""
    if isinstance(image, torch.Tensor):
        pixels = image.detach() if image.requires_grad else image
    elif isinstance(image, np.ndarray):
        pixels = _from_array(image, name)
    else:
        raise ValueError(f"{name} must be a PIL image, a uint8 array or a uint8 tensor, got {type(image).__name__}")
    if pixels.dtype != torch.uint8 or pixels.layout is not torch.strided:
        raise ValueError(f"{name} must be uint8, got {pixels.dtype}, {pixels.layout}")
    if pixels.dim() == 2:
        pixels = pixels.unsqueeze(-1)
    elif pixels.dim() == 3 and pixels.shape[0] in _CHANNELS:
        pixels = pixels.permute(1, 2, 0)
    elif pixels.dim() != 3 or pixels.shape[2] not in _CHANNELS:
        raise ValueError(f"{name} must be [H, W], [H, W, C] or [C, H, W] with C in 1, 3, 4; got {list(image.shape)}")
    if pixels.shape[0] == 0 or pixels.shape[1] == 0:
        raise ValueError(f"{name} has no pixel: its shape is {list(image.shape)}")
    return pixels


def content_digests(pictures: Sequence[torch.Tensor], threads: int) -> list[bytes]:
    """16 bytes for each picture that tell contents apart; not for use against an adversary.

    Equal for equal pixels in equal order, whatever lies between them in memory. The height and the width are not in it.

    Args:
        pictures: uint8 [H, W, 3] each, with any strides, on any device.
        threads: CPU threads; a photograph takes a fraction of a millisecond.
    """
    given: list[tuple[int, int, int]] = []
    found: list[tuple[int, int]] = []
    copies, copied = [], 0
    for picture in pictures:
        pixels = picture.cpu()
        height, width, _ = pixels.shape
        down, across, colour = pixels.stride()
        if colour != 1 or across not in (3, 4) or (down != width * across and height > 1):
            pixels, across = pixels.contiguous(), 3
        given.append((pixels.data_ptr(), height * width, across))
        if pixels is not picture:
            copies.append(pixels)
            copied += pixels.numel()
            if copied >= _COPIED:
                found += extension.C.digest_pictures(given, threads)
                given, copies, copied = [], [], 0
    found += extension.C.digest_pictures(given, threads)
    return [one.to_bytes(8, "little") + two.to_bytes(8, "little") for one, two in found]


def content_digest(pixels: torch.Tensor) -> bytes:
    """`content_digests` of one picture."""
    return content_digests([pixels], 1)[0]


def _from_array(image: np.ndarray[Any, Any], name: str) -> torch.Tensor:
    if image.dtype != np.uint8:
        raise ValueError(f"{name} must be uint8, got {image.dtype}")
    # torch takes neither negative strides nor, without a warning, read-only memory.
    if not image.flags.writeable or any(stride < 0 for stride in image.strides):
        image = image.copy()
    return torch.from_numpy(image)


def _over_white(pixels: torch.Tensor) -> torch.Tensor:
    """[H, W, 4] to [H, W, 3], in float64 and rounded half to even as transformers does for arrays."""
    alpha = pixels[..., 3:].to(torch.float64) / 255
    return torch.round(alpha * pixels[..., :3] + (1 - alpha) * 255).to(torch.uint8)


def _opened(image: Image.Image, name: str) -> Image.Image:
    """The image upright, with a pixel, and not too many of them."""
    if image.width == 0 or image.height == 0:
        raise ValueError(f"{name} has no pixel: its size is {image.size}")
    check_pixels(image, name)
    with decoding(name):
        return upright(image)


def _from_pil(image: Image.Image, name: str) -> torch.Tensor:
    with decoding(name):
        if "A" in image.getbands() or image.info.get("transparency") is not None:
            layer = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", layer.size, (255, 255, 255, 255)), layer)
        if image.mode not in ("RGB", "RGBA"):  # the latter is now opaque
            image = image.convert("RGB")
        borrowed = _borrowed(image)
        # The fourth byte is padding: a view without it cannot be taken for one with alpha.
        return torch.from_numpy(np.array(image.convert("RGB")) if borrowed is None else borrowed[..., :3])


def _borrowed(image: Image.Image) -> np.ndarray[Any, Any] | None:
    """Borrow the 4 bytes that Pillow keeps for each pixel through Arrow's interface: microseconds instead of a copy.

    Pillow 11.2 and later lend them where they lie in one piece, which is up to 16 MiB; larger images are copied strip
    by strip, still without repacking them to 3 bytes.
    """
    if not hasattr(image, "__arrow_c_array__") or _imaging.get_alignment() != 1:
        return None  # with another alignment rows are padded, which the interface does not say
    rows = max((1 << 24) // (4 * image.width), 1)
    if rows >= image.height:
        return _borrowed_strip(image)
    pixels = np.empty((image.height, image.width, 4), np.uint8)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        piece = _borrowed_strip(image.crop((0, top, image.width, bottom)))
        if piece is None:
            return None
        pixels[top:bottom] = piece
    return pixels


def _borrowed_strip(image: Image.Image) -> np.ndarray[Any, Any] | None:
    try:
        _, array = image.__arrow_c_array__()
    except ValueError:
        return None
    pixels: np.ndarray[Any, Any] | None = extension.C.lent_pixels(array, image.height, image.width)
    return pixels
