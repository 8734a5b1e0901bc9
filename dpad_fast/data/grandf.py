"""GranD-f: the grounded captions that GLaMM was tuned on, phrases of a caption with the masks of their objects.

GLaMM's own code (mbzuai-oryx/groundingLMM, `dataset/gcg_datasets/GranDf_gcg_ds.py`) reads three kinds of file:

* OpenPsgGCG and GranDf_HA: a list of {file_name, caption, groundings: {phrase: {token_positives, rle_masks: [RLE]}}};
* RefCOCOg_GCG: a list of {key: {img_file_name, caption, refs: [{sentence, segmentation: [polygons]}]}};
* flickr_mergedGT_GCG: COCO's {images: [{..., caption}], annotations: [{tokens_positive: [[start, end]], sam_mask}]}.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpad_fast import files
from dpad_fast._mask_geometry import box_of, inscribed_points
from dpad_fast._target import short
from dpad_fast.data.coco_file import (
    POINTS_KEY,
    Annotation,
    CocoFile,
    OnError,
    attempt,
    corners_of,
    points_of,
)
from dpad_fast.data.coco_writing import mask_to_write, rle_of, xywh
from dpad_fast.data.picture_files import PictureFolder, PictureWriter
from dpad_fast.data.segmentations import mask_of, read_json, union_of
from dpad_fast.types import BoolMask, Box, Sample, Size, Target

_NAMES = ("file_name", "img_file_name")
_COCO_NAMES = ("COCO_train2014_{:012d}.jpg", "{:012d}.jpg", "{}.jpg")
_ID_KEY, _OTHERS_KEY = "dpad_id", "dpad_other_boxes"


@dataclass(slots=True, eq=False)
class _Phrase:
    """A phrase of a caption: its masks as the file has them, and what this package's writer added."""

    text: Any
    segmentations: list[Any]
    where: str
    extra: dict[str, Any]


def load(
    path: str | os.PathLike[str],
    *,
    split: str | None = None,
    images: str | os.PathLike[str] | None = None,
    on_error: OnError = None,
    points: bool = True,
) -> Iterator[Sample]:
    """Reads a file of grounded captions, one sample per phrase, in the order of the file.

    Args:
        path: the JSON; or a folder that holds one.
        split: of a folder, the file whose name holds it. None: the only one.
        images: folder of the pictures; None: looked for near the file, as GLaMM's documents lay them out.
        on_error: called with one message for every row and phrase that is not as it should be, which is then left out;
            None: the first one raises.
        points: False leaves out points that would have to be derived from a mask.

    Returns:
        An iterator of samples. The query is the phrase; the id ROW-PHRASE, two numbers from 0 (for RefCOCOg KEY-PHRASE,
        for Flickr30k IMAGEID-PHRASE); `image` a path. The target has the phrase's masks united, the box around them,
        two points well inside, and the boxes of the caption's other phrases as `other_boxes`.

    Raises:
        ValueError: there is no such file, or not exactly one in the folder; while iterating, as `on_error` says.
    """
    place = Path(path)
    if place.is_dir():
        found = [file for file in sorted(place.glob("*.json")) if split is None or split in file.stem]
        if len(found) != 1:
            names = ", ".join(file.name for file in found[:8]) or "none"
            raise ValueError(f"path: expected one JSON of grounded captions in {place}, found {names}; give it as path")
        place = found[0]
    elif split is not None:
        raise ValueError(
            f"split: the splits of GranD-f are files; give the one that is meant as path, not {split!r:.80}"
        )
    if not place.is_file():
        raise ValueError(f"path: no file or folder {place}")
    return _samples(place, PictureFolder(place.parent, images), images, on_error, points)


def write(
    samples: Iterable[Sample],
    path: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
) -> Path:
    """Writes samples as the list of {file_name, caption, groundings} that GLaMM's code reads.

    Args:
        samples: each with a mask or polygons; consecutive ones of one picture share a row, whose caption is their
            phrases joined by commas.
        path: the JSON.
        images: the folder that already holds the pictures; None: they are copied to images/ beside the JSON.

    Returns:
        The path. `load` gives the same samples, by own keys of a grounding (`dpad_id`, `dpad_points`,
        `dpad_other_boxes`, `bbox`) that GLaMM's code does not look at; polygons become masks.

    Raises:
        ValueError: a sample without mask and polygons, or with a picture that cannot be opened; names the sample.
    """
    file = Path(path)
    store = PictureWriter(file.parent / "images", images)
    rows: list[dict[str, Any]] = []
    last: Any = None
    for sample in samples:
        where = f"sample {sample.id!r:.80}"
        if not rows or sample.image is not last or sample.query in rows[-1]["groundings"]:
            name, size = store.keep(sample.image, sample.id, where)
            rows.append({"file_name": name, "caption": "", "groundings": {}})
        last = sample.image
        mask = mask_to_write(sample.target, size)
        if mask is None or mask.shape != size[::-1]:
            raise ValueError(f"{where}: its target needs a mask, or polygons, of its picture's size {size}")
        row = rows[-1]
        start = len(row["caption"]) + 2 if row["caption"] else 0
        row["caption"] += f", {sample.query}" if start else sample.query
        row["groundings"][sample.query] = {
            "token_positives": [start, start + len(sample.query)],
            "rle_masks": [rle_of(mask)],
            _ID_KEY: sample.id,
            _OTHERS_KEY: [xywh(box) for box in sample.target.other_boxes],
            **({} if sample.target.box is None else {"bbox": xywh(sample.target.box)}),
            **({} if sample.target.points is None else {POINTS_KEY: [list(point) for point in sample.target.points]}),
        }
    files.write_json(file, rows, indent=0)
    return file


def _samples(file: Path, folder: PictureFolder, images: Any, on_error: OnError, points: bool) -> Iterator[Sample]:
    content = read_json(file)
    if isinstance(content, dict) and "annotations" in content:
        del content
        yield from _of_flickr(CocoFile(file, images, on_error), on_error, points)
        return
    if not isinstance(content, list):
        raise ValueError(f"{file}: expected a list of captions, or COCO's object, got {type(content).__name__}")
    for i, row in enumerate(content):
        yield from attempt(on_error, _of_row, row, i, f"{file}: row {i}", folder, on_error, points) or ()


def _of_row(row: Any, number: int, where: str, folder: PictureFolder, on_error: OnError, points: bool) -> list[Sample]:
    name: Any = number
    if isinstance(row, dict) and len(row) == 1 and isinstance(inner := next(iter(row.values())), dict):
        name, row = next(iter(row)), inner  # RefCOCOg's
        where = f"{where} ({name!r:.80})"
    if not isinstance(row, dict):
        raise ValueError(f"{where} must be an object, got {short(row)}")
    phrases = _phrases(row, where)
    path = _picture(row, where, folder)
    return _of_phrases(phrases, str(name), path, folder.size(path), on_error, points)


def _phrases(row: dict[str, Any], where: str) -> list[_Phrase]:
    groundings, refs = row.get("groundings"), row.get("refs")
    if isinstance(groundings, dict):
        found = []
        for phrase, entry in groundings.items():
            place = f"{where}: groundings[{phrase!r:.80}]"
            masks = entry.get("rle_masks") if isinstance(entry, dict) else None
            found.append(_Phrase(phrase, masks if isinstance(masks, list) else [], place, entry if masks else {}))
        return found
    if isinstance(refs, list):
        entries = [ref if isinstance(ref, dict) else {} for ref in refs]
        return [
            _Phrase(ref.get("sentence"), [ref.get("segmentation")], f"{where}: refs[{i}]", ref)
            for i, ref in enumerate(entries)
        ]
    raise ValueError(f"{where}: needs groundings (an object) or refs (a list), got the keys {short(list(row))}")


def _picture(row: dict[str, Any], where: str, folder: PictureFolder) -> str:
    name = next((row[key] for key in _NAMES if key in row), None)
    if isinstance(name, str) and name and "\0" not in name:
        return folder.find(name, where)
    number = row.get("img_id")
    if name is not None or isinstance(number, bool) or not isinstance(number, int | str):
        raise ValueError(f"{where}: file_name must be the name of a picture, or img_id its number, got {short(name)}")
    names = [f"{number}.jpg"] if isinstance(number, str) else [form.format(number) for form in _COCO_NAMES]
    for name in names[:-1]:
        try:
            return folder.find(name, where)
        except ValueError:
            continue
    return folder.find(names[-1], where)


def _of_phrases(
    phrases: list[_Phrase], name: str, path: str, size: Size, on_error: OnError, points: bool
) -> list[Sample]:
    masks = [attempt(on_error, _mask, phrase, size) for phrase in phrases]
    boxes = [None if mask is None else box_of(mask) for mask in masks]
    samples = []
    for i, (phrase, mask) in enumerate(zip(phrases, masks, strict=True)):
        if mask is None:
            continue
        others = [box for j, box in enumerate(boxes) if box is not None and j != i]
        target = attempt(on_error, _target, phrase, mask, boxes[i], others, size, points)
        if target is not None:
            samples.append(Sample(str(phrase.extra.get(_ID_KEY, f"{name}-{i}")), path, phrase.text, target))
    return samples


def _mask(phrase: _Phrase, size: Size) -> BoolMask:
    if not isinstance(phrase.text, str) or not phrase.text.strip():
        raise ValueError(f"{phrase.where}: the phrase must be text, got {short(phrase.text)}")
    masks = [mask_of(item, size, f"{phrase.where}: mask {i}") for i, item in enumerate(phrase.segmentations)]
    found = union_of(masks, size) if masks else None
    if found is None:
        raise ValueError(f"{phrase.where}: no mask; rle_masks must be a list of run lengths, segmentation of polygons")
    return found


def _target(phrase: _Phrase, mask: BoolMask, box: Box | None, others: list[Box], size: Size, points: bool) -> Target:
    extra = phrase.extra
    if _ID_KEY in extra:  # written here: the box is one that was given, and not GLaMM's, which has none
        box = None if extra.get("bbox") is None else corners_of(extra["bbox"], f"{phrase.where}: bbox")
        given = extra.get(_OTHERS_KEY)
        others = [
            corners_of(item, f"{phrase.where}: {_OTHERS_KEY}[{i}]")
            for i, item in enumerate(given if isinstance(given, list) else [])
        ]
    pair = points_of(extra, phrase.where) or (inscribed_points(mask) if points else None)
    return Target(box=box or box_of(mask), points=pair, image_size=size, mask=mask, other_boxes=tuple(others))


def _of_flickr(coco: CocoFile, on_error: OnError, points: bool) -> Iterator[Sample]:
    for picture in coco.pictures.values():
        phrases: dict[str, _Phrase] = {}
        for item in picture.annotations:
            if not item.ignored:
                attempt(on_error, _add_flickr, item, coco, phrases)
        place = attempt(on_error, coco.picture, picture.id)
        if place is not None:
            yield from _of_phrases(list(phrases.values()), str(picture.id), *place, on_error, points)


def _add_flickr(item: Annotation, coco: CocoFile, phrases: dict[str, _Phrase]) -> None:
    """Annotations of one span of the caption are one phrase."""
    caption, spans = coco.pictures[item.picture].caption, item.entry.get("tokens_positive")
    span = spans[0] if isinstance(spans, list) and spans and isinstance(spans[0], list) else []
    good = len(span) == 2 and all(type(v) is int for v in span)
    if not isinstance(caption, str) or not good or not 0 <= span[0] < span[1] <= len(caption):
        raise ValueError(f"{item.where}: tokens_positive must be [[start, end]] in the caption, got {short(spans)}")
    text = caption[span[0] : span[1]]
    phrase = phrases.setdefault(f"{span[0]}-{span[1]}", _Phrase(text, [], item.where, {}))
    phrase.segmentations.append(item.entry.get("sam_mask"))
