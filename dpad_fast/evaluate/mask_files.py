"""Predicted masks as files: PNG by id, NPZ, COCO run lengths."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dpad_fast import coco_mask
from dpad_fast.types import BoolMask, Size


def from_value(value: Any, place: str, folder: Path) -> BoolMask:
    """A mask as a line of predictions has it.

    Args:
        value: COCO run lengths ({"size": [H, W], "counts"}, compressed or a list), or the path of a picture
            or NumPy file.
        place: "FILE:NUMBER", for messages.
        folder: that relative paths start from.

    Returns:
        bool [H, W].

    Raises:
        ValueError: it is neither, or cannot be read; names the place.
    """
    if isinstance(value, str):
        return from_file(folder / value, place)
    size = value.get("size") if isinstance(value, dict) else None
    whole = isinstance(size, list) and len(size) == 2 and all(type(side) is int and 0 < side < 1 << 15 for side in size)
    if not whole or not isinstance(size, list) or not isinstance(value.get("counts"), str | list):
        raise ValueError(
            f'{place}: mask must be {{"size": [height, width], "counts": ...}} or a path, got {value!r:.80}'
        )
    if isinstance(value["counts"], list) and any(isinstance(n, float) and not n.is_integer() for n in value["counts"]):
        raise ValueError(f"{place}: mask is no COCO run lengths: counts must be whole numbers")
    try:
        rle = coco_mask.frPyObjects(value, *size) if isinstance(value["counts"], list) else value
        mask = coco_mask.decode(rle)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise ValueError(f"{place}: mask is no COCO run lengths: {error}") from None
    return np.asarray(mask, dtype=np.bool_)


def from_file(path: Path, place: str) -> BoolMask:
    """A mask from a picture (anything but black is the object) or a .npy or .npz file of one array.

    Args:
        path: the file.
        place: for messages.

    Returns:
        bool [H, W].

    Raises:
        ValueError: it cannot be read, holds no [H, W] array, is a JPEG, or has its shape in the alpha channel; names
            the place and the file.
    """
    from dpad_fast.pictures import decoding, open_picture

    name = f"{place}: {path}"
    if path.suffix == ".npy":
        with arrays(path, name) as loaded:
            return checked(loaded, name)
    if path.suffix == ".npz":
        with arrays(path, name) as archive:
            return checked(array_of(archive, _single(archive, name), name), name)
    with open_picture(str(path), name) as picture:
        if picture.format == "JPEG":
            raise ValueError(f"{name} is a JPEG, which changes pixels along edges: save masks as PNG")
        with decoding(name):
            pixels: np.ndarray[Any, Any] = np.asarray(picture)
    if pixels.ndim == 3:
        colours = pixels[..., : 3 if pixels.shape[2] > 2 else 1]
        if pixels.shape[2] in (2, 4) and (colours == colours[0, 0]).all() and np.ptp(pixels[..., -1]):
            raise ValueError(f"{name} has its shape in the alpha channel: save the mask as grey, 0 and 255")
        return checked(colours.any(axis=2), name)
    return checked(pixels, name)


@contextmanager
def arrays(path: str | os.PathLike[str], name: str) -> Iterator[Any]:
    """An array or archive of NumPy's, open; nothing in it is unpickled.

    Args:
        path: the file.
        name: for messages.

    Raises:
        ValueError: it cannot be read.
    """
    with ExitStack() as held:
        try:
            file = held.enter_context(open(path, "rb"))  # NumPy leaves one open that it opened and cannot read
            loaded = np.load(file, allow_pickle=False)
        except (*_UNREADABLE, OSError) as error:
            raise ValueError(f"{name} cannot be read as NumPy's: {error}") from None
        yield loaded


def array_of(archive: Any, key: str, name: str) -> Any:
    """One array of an archive.

    Raises:
        ValueError: it cannot be read; begins with `name`.
    """
    try:
        return archive[key]
    except _UNREADABLE as error:
        raise ValueError(f"{name}: array {key!r:.80} cannot be read: {error}") from None


# A member that is encrypted or packed by a method that Python has not is a RuntimeError of zipfile.
_UNREADABLE = (ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)


def _single(archive: Any, name: str) -> str:
    names = list(archive)
    if len(names) != 1:
        raise ValueError(f"{name}: an archive of one array is wanted, got {len(names)}: {', '.join(names)[:80]}")
    return str(names[0])


def checked(array: Any, name: str) -> BoolMask:
    """An array as a mask: bool [H, W], anything above 0 is the object; leading sides of 1 are dropped.

    Args:
        array: numbers or booleans.
        name: for messages.

    Returns:
        bool [H, W].

    Raises:
        ValueError: it has another number of sides, or is not of finite numbers.
    """
    found = np.asarray(array)
    while found.ndim > 2 and found.shape[0] == 1:
        found = found[0]
    if found.ndim != 2 or found.dtype.kind not in "buif" or not found.size:
        raise ValueError(f"{name}: a mask must be numbers [H, W], got {found.dtype} {found.shape}")
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise ValueError(f"{name}: a mask must be of finite numbers")
    return found > 0


def resized(mask: BoolMask, size: Size) -> BoolMask:
    """A mask at another size, by the nearest pixel, as Pillow does it.

    Args:
        mask: bool [H, W].
        size: (width, height).

    Returns:
        bool [height, width].
    """
    from PIL import Image

    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST), dtype=np.bool_)


def listed(source: str | os.PathLike[str]) -> list[tuple[str, str]] | None:
    """The (id, mask) pairs of a folder of PNG files or an NPZ archive; None for anything else.

    Args:
        source: what `--predictions` names.

    Returns:
        Ids are the files' names without their ending, or the arrays' names; masks are paths, for an archive the array's
        name again. In the order of the names.

    Raises:
        ValueError: the folder holds no PNG file, or the archive no array or cannot be read.
    """
    path = Path(source)
    if path.is_dir():
        found = sorted(path.glob("*.png"))
        if not found:
            raise ValueError(f"{path} holds no .png file (masks are named ID.png)")
        return [(file.stem, str(file.resolve())) for file in found]
    if path.suffix == ".npz":
        with arrays(path, str(path)) as archive:
            if not archive.files:
                raise ValueError(f"{path} holds no array (masks are named by id)")
            return [(name, name) for name in archive.files]
    return None


def rle_of(mask: BoolMask | None) -> dict[str, Any] | None:
    """COCO run lengths as JSON takes them, or None for no mask.

    Args:
        mask: bool [H, W].

    Returns:
        {"size": [H, W], "counts": text}.
    """
    if mask is None:
        return None
    found = coco_mask.encode(mask.view(np.uint8))
    counts = found["counts"]
    return {
        "size": [int(side) for side in found["size"]],
        "counts": counts.decode() if isinstance(counts, bytes) else counts,
    }
