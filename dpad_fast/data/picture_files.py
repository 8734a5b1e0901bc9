"""Pictures that annotations name: their paths, their sizes, and where a writer puts them."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from dpad_fast import files
from dpad_fast.pictures import decoding, open_picture, upright, upright_size
from dpad_fast.types import ImageLike, Size

SUBFOLDERS = (
    "",
    "images",
    "train2014",
    "val2014",
    "train2017",
    "val2017",
    "images/train2014",
    "images/train2017",
    "mscoco/images/train2014",
    "images/mscoco/images/train2014",
    "coco_2014/train2014",
    "coco_2017/train2017",
    "flikcr_30k/train",  # spelt so by those who publish it
    "GranDf_HA_images/train",
)
"""Where the published sets keep their pictures, seen from the annotations' folder or one above it."""


class PictureFolder:
    """Finds pictures by the names that annotations give them.

    Args:
        beside: folder of the annotation file; pictures are looked for in `SUBFOLDERS` of it and of the three above.
        images: the folder that holds the pictures, or such subfolders; None: as said.

    Raises:
        ValueError: `images` is no folder.
    """

    def __init__(self, beside: Path, images: str | os.PathLike[str] | None) -> None:
        if images is not None and not Path(images).is_dir():
            raise ValueError(f"images is not a directory: {Path(images)}")
        beside = beside.absolute()
        self._roots = [beside, *list(beside.parents)[:3]] if images is None else [Path(images)]
        self._by_hand = images is not None
        self._last: Path | None = None  # nearly always the next one lies there too

    def find(self, name: str, where: str) -> str:
        """The path of a picture.

        Args:
            name: as the annotations have it, a path or a bare name.
            where: the row, for the message.

        Raises:
            ValueError: no such file.
        """
        # Path.is_file would raise for names that are too long and folders that may not be read.
        if self._last is not None and os.path.isfile(path := self._last / name):
            return str(path)
        for root in self._roots:
            for folder in SUBFOLDERS:
                if os.path.isfile(path := root / folder / name):
                    self._last = root / folder
                    return str(path)
        place = f"{self._roots[0]} or its usual folders" if self._by_hand else f"{self._roots[0]} or near it"
        raise ValueError(f"{where}: picture {name!r:.120} is not in {place}; images= names the folder of the pictures")

    def size(self, path: str) -> Size:
        """(width, height) of a picture turned as its EXIF says; its pixels are not decoded.

        Raises:
            ValueError: it cannot be opened.
        """
        with open_picture(path, path) as image, decoding(path):
            return upright_size(image)


class PictureWriter:
    """Gives the pictures of samples names that an annotation file can use.

    Args:
        folder: where pictures are copied to.
        images: the folder that already holds them, which stays theirs; None: they are copied.
    """

    def __init__(self, folder: Path, images: str | os.PathLike[str] | None) -> None:
        self._folder = folder
        self._images = None if images is None else Path(images).absolute()
        self._copied_names: dict[str, str] = {}  # by the path that was copied
        self._names: set[str] = set()

    def keep(self, image: ImageLike, stem: str, where: str) -> tuple[str, Size]:
        """The name of a sample's picture, and its (width, height).

        Args:
            image: as a sample has it.
            stem: what to name it by where it has no file of its own.
            where: the sample, for messages.

        Raises:
            ValueError: the picture cannot be opened, or does not lie in `images`.
        """
        path = os.fspath(image) if isinstance(image, str | os.PathLike) else None
        if path is not None and path in self._copied_names:
            name = self._copied_names[path]
            return name, self._size(image, where)
        size = self._size(image, where)
        if self._images is not None:
            return self._relative(path, where), size
        name = self._free(Path(path).name if path is not None and len(path) < 4096 else f"{_safe(stem)}.png")
        files.make_folder(self._folder)
        if path is None:
            _save(image, self._folder / name, where)
        else:
            shutil.copyfile(path, self._folder / name)
            self._copied_names[path] = name
        return name, size

    def _relative(self, path: str | None, where: str) -> str:
        if path is None or self._images is None:
            raise ValueError(f"{where}: its picture is no file, so it does not lie in images; leave images out")
        try:
            return Path(path).absolute().relative_to(self._images).as_posix()
        except ValueError:
            raise ValueError(f"{where}: picture {path!r:.120} does not lie in images, {self._images}") from None

    def _free(self, name: str) -> str:
        stem, suffix = os.path.splitext(name)
        free, number = name, 1
        while free in self._names:
            number += 1
            free = f"{stem}-{number}{suffix}"
        self._names.add(free)
        return free

    @staticmethod
    def _size(image: ImageLike, where: str) -> Size:
        if isinstance(image, Image.Image):
            return upright_size(image)
        if isinstance(image, str | os.PathLike):
            with open_picture(os.fspath(image), f"{where}: picture") as opened, decoding(f"{where}: picture"):
                return upright_size(opened)
        pixels = _pixels(image, where)
        return int(pixels.shape[1]), int(pixels.shape[0])


def copy_as(image: ImageLike, folder: Path, stem: str, suffixes: Sequence[str], where: str) -> tuple[str, Size]:
    """Puts a picture into a folder under a name of one's own: a file as it is, all else as PNG.

    Args:
        image: as a sample has it.
        folder: where it goes; it is there.
        stem: its name.
        suffixes: of the files that may be copied, such as ".jpg".
        where: the sample, for messages.

    Returns:
        Its file name, and its (width, height) turned as its EXIF says.

    Raises:
        ValueError: the picture cannot be opened.
    """
    if isinstance(image, str | os.PathLike) and (suffix := os.path.splitext(os.fspath(image))[1].lower()) in suffixes:
        size = PictureWriter._size(image, where)
        copy = folder / f"{stem}{suffix}"
        if not (copy.exists() and copy.samefile(image)):
            shutil.copyfile(image, copy)
        return copy.name, size
    _save(image, folder / f"{stem}.png", where)
    return f"{stem}.png", PictureWriter._size(folder / f"{stem}.png", where)


def _pixels(image: Any, where: str) -> Any:
    from dpad_fast._native.images import as_pixels

    if isinstance(image, dict):
        image = image.get("bytes") if image.get("bytes") is not None else image.get("path")
    if isinstance(image, bytes | bytearray | memoryview | str):
        image = open_picture(bytes(image) if not isinstance(image, str) else image, f"{where}: picture")
    return as_pixels(image, f"{where}: picture")


def _save(image: Any, path: Path, where: str) -> None:
    buffer = io.BytesIO()
    with decoding(f"{where}: picture"):
        kept = upright(image) if isinstance(image, Image.Image) else Image.fromarray(_pixels(image, where).numpy())
        if kept.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
            kept = kept.convert("RGB")
        kept.save(buffer, "PNG")
    files.write_bytes(path, buffer.getvalue())


def _safe(stem: str) -> str:
    """A name that is one on every file system."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in stem)[:100].lstrip(".") or "picture"
