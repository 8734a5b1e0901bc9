"""ReasonSeg folders: a JSON beside each picture, with queries and the shapes of the target and of ignored regions.

The ground truth is drawn as the data set's own code draws it (LISA, `utils/data_processing.py`): vertices cut to int32,
`cv2.fillPoly` and `cv2.polylines` of thickness 1, larger shapes first so that smaller ones stay visible on top, shapes
whose label holds "ignore" as 255, shapes labelled "flag" left out. Shapes of other kinds, which labelme writes into the
same files, are what labelme draws (`dpad_fast.data.labelme`).
"""

from __future__ import annotations

import codecs
import itertools
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpad_fast import files
from dpad_fast._mask_geometry import box_of, inscribed_points
from dpad_fast.data import labelme
from dpad_fast.data import reasonseg_writing as writing
from dpad_fast.data.deferred import Deferred
from dpad_fast.data.labelme import LabelledShape, Region
from dpad_fast.data.picture_files import copy_as
from dpad_fast.ops.polygons import rasterize_polygons
from dpad_fast.pictures import decoding, open_picture, upright_size
from dpad_fast.terminal import as_utf8
from dpad_fast.types import Ring, Sample, Size, Target

TARGET, IGNORE = 1, 255
_PICTURES = (".jpg", ".jpeg", ".png")
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16's, with which it begins
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
# cp1252's ellipsis, curly quotes, bullet, dashes and unbreakable space. Its letters are not among them: they are the
# bytes of which GBK, Big5, Shift-JIS and cp1251 make theirs, and no file says which it is in.
_PUNCTUATION = frozenset(b"\x85\x91\x92\x93\x94\x95\x96\x97\xa0")


def load(
    folder: str | os.PathLike[str], *, encoding: str | None = None, on_error: Callable[[str], None] | None = None
) -> Iterator[Sample]:
    """Reads a ReasonSeg folder, one sample per query, in the order of the file names.

    Args:
        folder: holds NAME.json beside NAME.jpg (or .jpeg, .png).
        encoding: of the JSON files, by Python's name. None: as the byte order mark says, else UTF-8; a file that is no
            UTF-8 is read as cp1252 (as some of the published ones are) where nothing but punctuation depends on it.
        on_error: called with one message for every file that is not as it should be, which is then left out; None: the
            first one raises.

    Returns:
        An iterator of samples. `image` is the picture's path; sizes and polygons are those of the picture turned as
        its EXIF says, which is how labelling tools show it and how it is scored. `target` has the mask (pixels of value
        1), `ignore` (pixels of value 255, None where no shape asks for it), the target's polygons (None where a part of
        it is no polygon, or is drawn on the picture though it lies off it by less than a pixel), its box (x2 and y2 one
        past the last pixel) and two points, the centres of large inscribed circles. Where no target pixel is left, box
        and points are None, and a warning names the file. The id is NAME, or NAME-0, NAME-1, ... for several queries.

    Raises:
        ValueError: `folder` is no folder or holds no JSON, `encoding` is unknown, or (while iterating) a file is not as
            it should be: not to be decoded, a shape that labelme does not draw, `imageWidth` and `imageHeight` that
            are not the picture's; the message names the file and the field.
    """
    return _samples_of_files(_files(folder, encoding), encoding, on_error)


def write(samples: Iterable[Sample], folder: str | os.PathLike[str]) -> Path:
    """Writes samples as a ReasonSeg folder: a picture and a JSON for each, which labelme opens too.

    Consecutive samples of one picture and one target, with the ids NAME-0, NAME-1, ..., share the file NAME.

    Args:
        samples: each with a mask or polygons, and an id that can be the name of a file.
        folder: made where it is not there; JPEG and PNG files are copied into it, other pictures saved as PNG.

    Returns:
        The folder. `load` gives the same ids, queries, masks and ignored pixels, in the order of the file names; and
        the same polygons where they draw that mask. Where they do not, or where there are none, the target is a shape
        of labelme's kind "mask". Box and points are derived from the mask again; other boxes are not in this form.

    Raises:
        ValueError: the form cannot say what a sample has: neither mask nor polygons, several objects, pixels both
            target and ignored, an id that is no file name, a picture that cannot be opened or has another size than
            the target; or another picture of that name lies in the folder. Names the sample; those before it are
            written.
    """
    place = files.make_folder(folder)
    for name, group in writing.by_file(samples):
        where = f"sample {group[0].id!r:.80}"
        picture, size = copy_as(group[0].image, place, name, _PICTURES, where)
        # The first that `load` finds would be taken for it.
        if (found := _beside(place / f"{name}.json")) != place / picture:
            raise ValueError(f"{where}: {found} is there already, another picture of its name")
        shapes = _shapes_of(group[0].target, size, where)
        files.write_json(place / f"{name}.json", writing.record([s.query for s in group], shapes, picture, size))
    return place


def _shapes_of(target: Target, size: Size, where: str) -> list[dict[str, Any]]:
    """The entries of `shapes` that draw the target again."""
    if target.image_size is not None and target.image_size != size:
        raise ValueError(f"{where}: image_size is {target.image_size}, but its picture is {size}")
    if target.objects:
        raise ValueError(f"{where}: it lists objects, and this form has one target a picture")
    if target.mask is None and target.polygons is None:
        raise ValueError(f"{where}: it has neither mask nor polygons, which is all that this form says of a target")
    ignored = [] if target.ignore is None else writing.mask_shape("ignore", target.ignore)
    outlines = [writing.polygon_shape("target", ring) for ring in target.polygons or ()]
    if target.polygons is not None and _draws([*outlines, *ignored], target, size, where):
        return [*outlines, *ignored]
    if target.mask is None:
        raise ValueError(f"{where}: its polygons and ignored pixels do not draw what they are: give a mask")
    if target.ignore is not None and (target.mask & target.ignore).any():
        raise ValueError(f"{where}: mask and ignore share pixels, and this form has one value for each")
    return [*writing.mask_shape("target", target.mask), *ignored]


def _draws(shapes: list[dict[str, Any]], target: Target, size: Size, where: str) -> bool:
    """Whether `load` would make the polygons, mask and ignored pixels of a target of the shapes."""
    width, height = size
    found = [labelme.read(shape, where) for shape in shapes]
    drawn = draw([(shape.label, shape.region(height, width)) for shape in found], height, width)
    ignore = np.zeros((height, width), np.bool_) if target.ignore is None else target.ignore
    return (
        all(_touches(ring, size) for ring in target.polygons or ())
        and (target.mask is None or np.array_equal(drawn == TARGET, target.mask))
        and np.array_equal(drawn == IGNORE, ignore)
    )


def find(
    folder: str | os.PathLike[str], ids: Iterable[str], *, encoding: str | None = None, points: bool = True
) -> dict[str, Sample]:
    """The samples of some ids, as `load` yields them; files that no id refers to are not read.

    Args:
        folder: see `load`.
        ids: NAME, or NAME-0, NAME-1, ... for pictures with several queries.
        encoding: see `load`.
        points: False leaves the targets' two points out, which take most of the time of reading.

    Returns:
        Samples by id, in the order of `ids`; ids that the folder does not hold are left out.

    Raises:
        ValueError: as `load`, for the files that the ids refer to.
    """
    files = {as_utf8(file.stem): file for file in _files(folder, encoding)}
    wanted = list(dict.fromkeys(ids))
    found: dict[str, Sample] = {}
    for numbered in (False, True):  # a file of the whole name before the queries of a file of the name in front
        left = [name for name in wanted if name not in found]
        stems = [name.rpartition("-")[0] if numbered else name for name in left]
        for stem in dict.fromkeys(stem for stem in stems if stem in files):
            found |= {sample.id: sample for sample in _samples(files[stem], encoding, points) if sample.id in left}
    return {name: found[name] for name in wanted if name in found}


def defer(
    folder: str | os.PathLike[str],
    *,
    encoding: str | None = None,
    on_error: Callable[[str], None] | None = None,
    points: bool = True,
) -> Iterator[Deferred]:
    """The samples of a folder to be read later, in the order of `load`; only queries are looked at. See `find`."""
    for file in _files(folder, encoding):
        try:
            names = _ids(file, _queries(file, _read(file, encoding)))
        except (ValueError, OSError) as error:
            if on_error is None:
                raise
            on_error(str(error))
            continue
        for i, name in enumerate(names):
            yield Deferred(name, partial(_sample_of, file, i, encoding, points))


def _sample_of(file: Path, index: int, encoding: str | None, points: bool) -> Sample:
    return next(itertools.islice(_samples(file, encoding, points), index, None))


def list_ids(folder: str | os.PathLike[str], *, encoding: str | None = None) -> tuple[list[str], list[str]]:
    """All ids of a folder, without looking at pictures and shapes.

    Args:
        folder: see `load`.
        encoding: see `load`.

    Returns:
        The ids in the order of `load`; and for every file whose queries cannot be read, what is wrong with it.

    Raises:
        ValueError: `folder` is no folder or holds no JSON.
    """
    broken: list[str] = []
    return [found.id for found in defer(folder, encoding=encoding, on_error=broken.append)], broken


def _samples_of_files(
    files: list[Path], encoding: str | None, on_error: Callable[[str], None] | None
) -> Iterator[Sample]:
    for file in files:
        try:
            yield from _samples(file, encoding)
        except (ValueError, OSError) as error:
            if on_error is None:
                raise
            on_error(str(error))


def _files(folder: str | os.PathLike[str], encoding: str | None) -> list[Path]:
    path = Path(folder)
    if not path.is_dir():
        raise ValueError(f"folder is not a directory: {path}")
    if encoding is not None:
        _check_encoding(encoding)
    files = sorted(path.glob("*.json"))
    if not files:
        raise ValueError(f"folder holds no .json file: {path}")
    return files


def _queries(file: Path, content: dict[str, Any]) -> list[str]:
    queries = content.get("text")
    if isinstance(queries, str):
        queries = [queries]
    if not isinstance(queries, list) or not queries or not all(isinstance(query, str) for query in queries):
        raise ValueError(f"{file}: text must be a list of strings, got {queries!r:.80}")
    return queries


def _ids(file: Path, queries: list[str]) -> list[str]:
    name = as_utf8(file.stem)  # ids in files of predictions are UTF-8, whatever the locale makes of names
    return [name] if len(queries) == 1 else [f"{name}-{i}" for i in range(len(queries))]


def draw(shapes: Sequence[tuple[str, Region]], height: int, width: int) -> NDArray[np.uint8]:
    """Draws labelled regions as ReasonSeg does.

    Args:
        shapes: (label, ring [n, 2] of (x, y)), or (label, pixels bool [height, width]).
        height: rows of the picture.
        width: columns of the picture.

    Returns:
        uint8 [height, width]: 1 target, 255 ignored, 0 neither.
    """
    kept = [(label.lower(), region) for label, region in shapes if not _is_flag(label)]
    out = np.zeros((height, width), np.uint8)
    if not kept:
        return out
    rings = [_at_least_three(region) for _, region in kept if region.dtype != np.bool_]
    drawn = iter(rasterize_polygons(rings, height, width, rule="opencv", outline=True, out="dense").numpy())
    masks = [region if region.dtype == np.bool_ else next(drawn) for _, region in kept]
    areas = [int(np.count_nonzero(mask)) for mask in masks]
    for i in sorted(range(len(kept)), key=lambda i: (areas[i], i), reverse=True):
        out[masks[i]] = IGNORE if _is_ignored(kept[i][0]) else TARGET
    return out


def _at_least_three(ring: Region) -> Region:
    """A point or a line is drawn too; repeating its last vertex makes it a polygon of the same pixels."""
    repeated: Ring = np.concatenate([ring, np.repeat(ring[-1:], max(3 - len(ring), 0), axis=0)]).astype(np.float64)
    return repeated


def _is_flag(label: str) -> bool:
    return label.lower() == "flag"


def _is_ignored(label: str) -> bool:
    return "ignore" in label.lower()


def _samples(file: Path, encoding: str | None, points: bool = True) -> Iterator[Sample]:
    content = _read(file, encoding)
    queries = _queries(file, content)
    shapes = _shapes(file, content.get("shapes"))
    image, size = _picture(file)
    _check_size(file, content, size)
    target = _target(file, shapes, size, points)
    for name, query in zip(_ids(file, queries), queries, strict=True):
        yield Sample(name, image, query, target)


def _target(file: Path, shapes: list[LabelledShape], size: Size, points: bool) -> Target:
    width, height = size
    drawn = draw([(shape.label, shape.region(height, width)) for shape in shapes], height, width)
    mask, ignore = drawn == TARGET, drawn == IGNORE
    parts = [shape for shape in shapes if not _is_ignored(shape.label) and not _is_flag(shape.label)]
    box = box_of(mask)
    if box is None:
        # A published set has such files, so they are no error, but whoever needs the box is told which they are.
        why = f"its {len(parts)} target shapes lie off the picture or under ignored ones" if parts else "it labels none"
        warnings.warn(f"{file}: no pixel is target ({why}), so it has neither box nor points", stacklevel=4)
    # What lies off the picture is no pixel of it, and a target would refuse it.
    rings = [shape.ring for shape in parts if shape.ring is None or _reaches(shape.ring, size)]
    found = [ring for ring in rings if ring is not None and _touches(ring, size)]
    try:
        return Target(
            box=box,
            points=inscribed_points(mask) if points else None,
            image_size=size,
            mask=mask,
            polygons=tuple(found) if box is not None and len(found) == len(rings) else None,
            ignore=ignore if ignore.any() else None,
        )
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _touches(ring: Ring, size: Size) -> bool:
    return bool((ring.max(axis=0) >= 0).all() and (ring.min(axis=0) <= size).all())


def _reaches(ring: Ring, size: Size) -> bool:
    """Whether a ring can be drawn on the picture: vertices are cut to integers, so one at -0.5 is drawn on pixel 0."""
    return _touches(np.trunc(ring), size)


def _check_size(file: Path, content: dict[str, Any], size: Size) -> None:
    """Sizes that are not the picture's mean that the shapes belong to another one, or to the picture unturned."""
    said = content.get("imageWidth"), content.get("imageHeight")
    for name, value, actual in zip(("imageWidth", "imageHeight"), said, size, strict=True):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{file}: {name} must be a number or null, got {value!r:.80}")
        if value != actual:
            turned = " (turned as its EXIF orientation says)" if said == size[::-1] else ""
            raise ValueError(
                f"{file}: imageWidth x imageHeight is {said[0]} x {said[1]}, but the picture beside it is "
                f"{size[0]} x {size[1]}{turned}"
            )


def _check_encoding(encoding: str) -> None:
    try:
        codecs.lookup(encoding)
    except (LookupError, TypeError, ValueError):
        raise ValueError(f"encoding must be the name of a text encoding, got {encoding!r:.80}") from None


def _read(file: Path, encoding: str | None) -> dict[str, Any]:
    text = _decoded(file, file.read_bytes(), encoding)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: expected an object with text and shapes, got {type(content).__name__}")
    return content


def _decoded(file: Path, raw: bytes, encoding: str | None) -> str:
    marked = next((name for mark, name in _MARKS if raw.startswith(mark)), None)
    try:
        return raw.decode(encoding or marked or "utf-8")
    except (UnicodeDecodeError, LookupError) as error:
        if encoding or marked or not isinstance(error, UnicodeDecodeError):
            raise ValueError(f"{file}: cannot be read as {encoding or marked}: {error}") from None
        other = {byte for byte in raw if byte >= 0x80} - _PUNCTUATION
        if not other:
            return raw.decode("cp1252")
        raise ValueError(
            f"{file}: not valid UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start}; save the file as UTF-8, "
            'or name its encoding, as load(folder, encoding="gbk")'
        ) from None


def _shapes(file: Path, shapes: object) -> list[LabelledShape]:
    if not isinstance(shapes, list):
        raise ValueError(f"{file}: shapes must be a list, got {type(shapes).__name__}")
    return [labelme.read(shape, f"{file}: shapes[{i}]") for i, shape in enumerate(shapes)]


def _beside(file: Path) -> Path | None:
    return next((p for suffix in _PICTURES if (p := file.with_suffix(suffix)).is_file()), None)


def _picture(file: Path) -> tuple[str, tuple[int, int]]:
    path = _beside(file)
    if path is None:
        raise ValueError(f"{file}: no picture beside it ({', '.join(file.stem + suffix for suffix in _PICTURES)})")
    with open_picture(str(path), str(path)) as image, decoding(str(path)):
        return str(path), upright_size(image)
