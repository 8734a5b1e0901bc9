"""COCO instances with expressions: the annotations that someone described, with the words they used.

The words stand in the annotation (`expressions`, a list or one text; or `caption`), or in a JSON object that maps the
annotation's id to a text or a list of them: `expressions.json` beside the annotations, or any other given by name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dpad_fast import files
from dpad_fast._target import short
from dpad_fast.data.coco_file import (
    Annotation,
    CocoFile,
    Described,
    OnError,
    attempt,
    defer_all,
    draw_all,
    refuse,
)
from dpad_fast.data.coco_writing import CocoWriter
from dpad_fast.data.deferred import Deferred
from dpad_fast.data.segmentations import read_json
from dpad_fast.types import Sample

EXPRESSIONS_FILE = "expressions.json"
_KEYS = ("expressions", "caption")
_ID_KEY = "dpad_ids"


def load(
    path: str | os.PathLike[str],
    *,
    split: str | None = None,
    images: str | os.PathLike[str] | None = None,
    on_error: OnError = None,
    expressions: str | os.PathLike[str] | Mapping[Any, Any] | None = None,
) -> Iterator[Sample]:
    """Reads a COCO instances file, one sample per expression, in the order of the annotations.

    Args:
        path: the JSON; or a folder that holds one (itself, or in annotations/), besides `expressions.json`.
        split: of a folder, the file whose name holds it (`instances_val2017.json` for "val2017" or "val"); of a file,
            the annotations whose own or whose picture's `split` it is. None: all.
        images: folder of the pictures; None: looked for near the file.
        on_error: called with one message for every picture, annotation and expression that is not as it should be,
            which is then left out; None: the first one raises.
        expressions: the mapping from annotation ids to expressions, or its JSON file; None: `expressions.json` beside
            the annotations where there is one.

    Returns:
        An iterator of samples. The id is that of the annotation, or ID-0, ID-1, ... for several expressions; `image` is
        a path. The target has the mask by COCO's rule (polygons, or run lengths, compressed or not), the polygons, the
        `bbox` (else the mask's box), two points well inside, and as `other_boxes` those of the picture's other
        annotations. A crowd is a target where it has expressions, and no other box; an annotation with `ignore` is
        neither, its pixels are the `ignore` of every sample of the picture. One without segmentation is a box alone.

    Raises:
        ValueError: there is no such file, or not exactly one in the folder; while iterating, no annotation has an
            expression, or as `on_error` says.
    """
    return draw_all(_read(path, split, images, on_error, expressions), on_error)


def defer(
    path: str | os.PathLike[str],
    *,
    split: str | None = None,
    images: str | os.PathLike[str] | None = None,
    on_error: OnError = None,
    points: bool = True,
) -> Iterator[Deferred]:
    """The samples of a COCO file, to be drawn later; see `load`.

    Args:
        path: see `load`.
        split: see `load`.
        images: see `load`.
        on_error: see `load`; what only drawing finds is raised by the sample that is read.
        points: False leaves out points that would have to be derived from a mask.

    Returns:
        An iterator.
    """
    return defer_all(_read(path, split, images, on_error, None), points)


def _read(path: Any, split: str | None, images: Any, on_error: OnError, expressions: Any) -> Iterator[list[Described]]:
    file = _file_of(Path(path), split)
    if expressions is None and (beside := file.with_name(EXPRESSIONS_FILE)).is_file():
        expressions = beside
    if expressions is not None and not isinstance(expressions, Mapping) and not Path(expressions).is_file():
        raise ValueError(f"expressions: no file {Path(expressions)}")
    return _described(file, expressions, None if Path(path).is_dir() else split, images, on_error)


def write(
    samples: Iterable[Sample],
    path: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
) -> Path:
    """Writes samples as a COCO file; consecutive samples of one picture and one target share an annotation.

    Args:
        samples: each with a mask, polygons or a box, and some pixel of it.
        path: the JSON.
        images: the folder that already holds the pictures; None: they are copied to images/ beside the JSON.

    Returns:
        The path. `load` gives the same samples (an own key of the annotations, `dpad_ids`, keeps ids that are none
        of COCO's, `dpad_points` the two points); of several objects their union.

    Raises:
        ValueError: a sample without ground truth or a target pixel, or with a picture that cannot be opened.
    """
    file = Path(path)
    writer = CocoWriter(file.parent / "images", images)
    last: Sample | None = None
    entry: dict[str, Any] = {}
    for sample in samples:
        if last is None or last.image is not sample.image or last.target is not sample.target:
            numbers = writer.add(sample, together=True)[1]
            if not numbers:
                raise ValueError(f"sample {sample.id!r:.80}: its mask has no pixel, and this form has no such targets")
            entry = writer.annotation(numbers[0])
            entry["expressions"], entry[_ID_KEY] = [], []
        last = sample
        entry["expressions"].append(sample.query)
        entry[_ID_KEY].append(sample.id)
    files.write_json(file, writer.content(), indent=0)
    return file


def _file_of(path: Path, split: str | None) -> Path:
    if not path.is_dir():
        if not path.is_file():
            raise ValueError(f"path: no file or folder {path}")
        return path
    found = sorted(file for file in [*path.glob("*.json"), *path.glob("annotations/*.json")])
    found = [file for file in found if file.name != EXPRESSIONS_FILE and (split is None or split in file.stem)]
    if len(found) != 1:
        names = ", ".join(file.name for file in found[:8]) or "none"
        wanted = "" if split is None else f" with {split!r:.80} in its name"
        more = "; give the one that is meant as the path" if found else ""
        raise ValueError(f"path: expected one annotation file{wanted} in {path}, found {names}{more}")
    return found[0]


def _described(
    file: Path, expressions: Any, split: str | None, images: Any, on_error: OnError
) -> Iterator[list[Described]]:
    coco = CocoFile(file, images, on_error)
    texts = None if expressions is None else _Mapped(expressions, coco, on_error)
    described = of_split = False
    for annotation in coco.annotations.values():
        if not _is_of_split(annotation, coco, split):
            continue
        of_split = True
        found = attempt(on_error, _of_annotation, coco, annotation, texts, on_error) or []
        described = described or bool(found) or any(key in annotation.entry for key in _KEYS)
        yield found
    if split is not None and not of_split:
        raise ValueError(f"split: {file} has no annotation or image whose split is {split!r:.80}")
    if not described and texts is None:
        raise ValueError(
            f"{file}: no annotation has an expression; looked for {' and '.join(_KEYS)} in the annotations and for "
            f"{EXPRESSIONS_FILE} beside the file, which maps annotation ids to expressions"
        )


class _Mapped:
    """Expressions by annotation id; JSON has its keys as text, whatever the ids are."""

    def __init__(self, given: Any, coco: CocoFile, on_error: OnError) -> None:
        self.name = "expressions" if isinstance(given, Mapping) else str(given)
        found = given if isinstance(given, Mapping) else read_json(Path(given))
        if not isinstance(found, Mapping):
            raise ValueError(f"{self.name}: expected an object from annotation ids to expressions, got {short(found)}")
        self._texts = {str(key): value for key, value in found.items()}
        known = {str(number) for number in coco.annotations}
        for key in self._texts.keys() - known:
            refuse(f"{self.name}: id {key!r:.80} is none of the annotations of {coco.file}", on_error)

    def get(self, annotation: Annotation) -> Any:
        return self._texts.get(str(annotation.id))


def _is_of_split(annotation: Annotation, coco: CocoFile, split: str | None) -> bool:
    if split is None:
        return True
    return bool(annotation.entry.get("split", coco.pictures[annotation.picture].split) == split)


def _of_annotation(coco: CocoFile, annotation: Annotation, texts: _Mapped | None, on_error: OnError) -> list[Described]:
    if annotation.ignored:
        return []
    where, given = annotation.where, next((annotation.entry[key] for key in _KEYS if key in annotation.entry), None)
    if texts is not None and (mapped := texts.get(annotation)) is not None:
        where, given = f"{texts.name}: id {annotation.id}", mapped
    if given is None:
        return []
    queries = [given] if isinstance(given, str) else given
    if not isinstance(queries, list):
        raise ValueError(f"{where}: expressions must be a text or a list of texts, got {short(given)}")
    if not queries:
        return []
    recipe = coco.recipe([annotation], annotation.picture)
    path = coco.picture(annotation.picture)[0]
    names = annotation.entry.get(_ID_KEY)
    if not isinstance(names, list) or len(names) != len(queries):
        names = [annotation.id] if len(queries) == 1 else [f"{annotation.id}-{i}" for i in range(len(queries))]
    samples = []
    for i, (name, query) in enumerate(zip(names, queries, strict=True)):
        if isinstance(query, str) and query.strip():
            samples.append(Described(str(name), path, query, recipe))
        else:
            refuse(f"{where}: expressions[{i}] must be text, got {short(query)}", on_error)
    return samples
