"""RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO as they are published: COCO's `instances.json`, and a file of refs.

The refs are `refs(unc).p`, `refs(google).p`, `refs(umd).p` (pickles) or `grefs(unc).json`; a list of {ref_id, image_id,
ann_id, split, sentences: [{sent_id, sent}]}. In gRefCOCO `ann_id` is a list: of several annotations, which are the
target together, or [-1] (or nothing) where the sentence fits no object of the picture. Fields and rules are those of
the sets' own readers (lichengunc/refer, `refer.py`; henghuiding/ReLA, `grefer.py`).
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dpad_fast import files
from dpad_fast._target import short
from dpad_fast.data import plain_pickle
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
from dpad_fast.types import Sample, Target

NO_TARGET = -1


def load(
    path: str | os.PathLike[str],
    *,
    split: str | None = None,
    images: str | os.PathLike[str] | None = None,
    on_error: OnError = None,
) -> Iterator[Sample]:
    """Reads a folder of RefCOCO's layout, one sample per sentence, in the order of the refs.

    Args:
        path: the folder with `instances.json` and one file of refs; or the file of refs, beside `instances.json`.
        split: "train", "val", "test", "testA", "testB", as the refs name them; "test" takes testA and testB too, where
            there is no other. None: all.
        images: folder of COCO's train2014 pictures; None: looked for near the folder.
        on_error: called with one message for every picture, annotation, ref and sentence that is not as it should be,
            which is then left out; None: the first one raises.

    Returns:
        An iterator of samples. The id is REFID-SENTID (REFID, or REFID-0, REFID-1, ..., where sentences have no
        `sent_id`), `image` a path. The target has the annotation's mask by COCO's rule, its polygons, its `bbox`, two
        points well inside, and as `other_boxes` those of the picture's other annotations (not of crowds, nor of boxes
        without area). Where `ann_id` is a list, the masks are united, the box lies around all, and `objects` lists
        them; for no annotation the mask is all False, and box and points are None.

    Raises:
        ValueError: there is no such folder, not exactly one file of refs, or no ref of that split; while iterating, as
            `on_error` says.
    """
    return draw_all(_read(path, split, images, on_error), on_error)


def defer(
    path: str | os.PathLike[str],
    *,
    split: str | None = None,
    images: str | os.PathLike[str] | None = None,
    on_error: OnError = None,
    points: bool = True,
) -> Iterator[Deferred]:
    """The samples of a folder, to be drawn later; see `load`.

    Args:
        path: see `load`.
        split: see `load`.
        images: see `load`.
        on_error: see `load`; what only drawing finds is raised by the sample that is read.
        points: False leaves out points that would have to be derived from a mask.

    Returns:
        An iterator.
    """
    return defer_all(_read(path, split, images, on_error), points)


def _read(path: Any, split: str | None, images: Any, on_error: OnError) -> Iterator[list[Described]]:
    place = Path(path)
    refs = _refs_file(place) if place.is_dir() else place
    instances = refs.parent / "instances.json"
    for file in (refs, instances):
        if not file.is_file():
            raise ValueError(f"path: no file {file}")
    return _described(refs, instances, split, images, on_error)


def write(
    samples: Iterable[Sample],
    path: str | os.PathLike[str],
    *,
    split: str = "train",
    split_by: str = "unc",
    images: str | os.PathLike[str] | None = None,
) -> Path:
    """Writes samples in RefCOCO's layout; consecutive samples of one picture and one target become one ref.

    Args:
        samples: each with a mask, polygons or a box.
        path: the folder; made where it is not there.
        split: what the refs say.
        split_by: the name in the brackets of the file of refs.
        images: the folder that already holds the pictures; None: they are copied to PATH/images.

    Returns:
        The file of refs: `grefs(SPLIT_BY).json` where a target lists objects or has no pixel, else `refs(SPLIT_BY).p`.
        `load` gives the same samples; an id that is no REFID-SENTID becomes the ref's. Several objects have one mask in
        a target, so each gets the part of it that lies in its box (the first also what lies in none).

    Raises:
        ValueError: a sample without ground truth or with a picture that cannot be opened; names the sample.
    """
    folder = Path(path)
    writer = CocoWriter(folder / "images", images)
    refs: list[dict[str, Any]] = []
    last: tuple[Any, Any, str] | None = None
    general = False
    for sample in samples:
        head, dash, tail = sample.id.rpartition("-")
        name, number = (head, tail) if dash and head else (sample.id, None)
        new = last is None or last[0] is not sample.image or last[1] is not sample.target or last[2] != name
        if new or number is None:
            picture, annotations = writer.add(sample)
            refs.append(_ref(name, picture, annotations, split, writer))
            if annotations and not sample.target.objects:  # one, not a list of one, which would list it as an object
                refs[-1]["ann_id"] = annotations[0]
        last = (sample.image, sample.target, name)
        general = general or _is_general(sample.target)
        sentence = {"sent": sample.query, "raw": sample.query, "tokens": sample.query.split()}
        refs[-1]["sentences"].append(sentence if number is None else {"sent_id": _number(number), **sentence})
    for ref in refs:
        if not general:
            ref["category_id"] = ref["category_id"][0]
        ref["sent_ids"] = [sentence["sent_id"] for sentence in ref["sentences"] if "sent_id" in sentence]
    files.write_json(folder / "instances.json", writer.content(), indent=0)
    place = folder / (f"grefs({split_by}).json" if general else f"refs({split_by}).p")
    if general:
        files.write_json(place, refs)
    else:
        files.write_bytes(place, pickle.dumps(refs, 2))
    return place


def _ref(name: str, picture: int, annotations: list[int], split: str, writer: CocoWriter) -> dict[str, Any]:
    return {
        "ref_id": _number(name),
        "ann_id": annotations or [NO_TARGET],
        "category_id": [1] * len(annotations) or [NO_TARGET],
        "image_id": picture,
        "file_name": writer.name_of(picture),
        "split": split,
        "sentences": [],
    }


def _number(text: str) -> int | str:
    """A number where it is written as one is."""
    return int(text) if text.isascii() and text.isdigit() and str(int(text[:18])) == text else text


def _is_general(target: Target) -> bool:
    return bool(target.objects) or (target.box is None and target.mask is not None and not target.mask.any())


def _refs_file(folder: Path) -> Path:
    found = sorted(
        file
        for pattern in ("refs(*)", "grefs(*)")
        for suffix in (".p", ".pkl", ".json")
        for file in folder.glob(pattern + suffix)
    )
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        more = "; give the one that is meant as the path" if found else ""
        raise ValueError(
            f"path: expected one refs(*).p, refs(*).json or grefs(*).json in {folder}, found {names}{more}"
        )
    return found[0]


def _described(
    refs_file: Path, instances: Path, split: str | None, images: Any, on_error: OnError
) -> Iterator[list[Described]]:
    refs = _read_refs(refs_file)
    coco = CocoFile(instances, images, on_error)
    known: set[str] = set()
    any_of_split = False
    for i, ref in enumerate(refs):
        where = f"{refs_file}: ref {i}"
        if not isinstance(ref, dict):
            refuse(f"{where} must be an object, got {short(ref)}", on_error)
            continue
        known.add(str(ref.get("split")))
        if not _is_of_split(ref.get("split"), split):
            continue
        any_of_split = True
        yield attempt(on_error, _of_ref, coco, ref, where, on_error) or []
    if not any_of_split and split is not None:
        raise ValueError(
            f"split: {refs_file} has no ref of {split!r:.80}, only of {', '.join(sorted(known)) or 'none'}"
        )


def _read_refs(file: Path) -> list[Any]:
    if file.suffix == ".json":
        refs, size = read_json(file), file.stat().st_size
    else:
        data = file.read_bytes()
        refs, size = plain_pickle.loads(data, str(file)), len(data)
    if not isinstance(refs, list):
        raise ValueError(f"{file}: expected a list of refs, got {type(refs).__name__}")
    # A list may stand in a pickle once and be meant a million times.
    counts = (len(ref["sentences"]) for ref in refs if isinstance(ref, dict) and isinstance(ref.get("sentences"), list))
    if sum(counts) > size:
        raise ValueError(f"{file}: more sentences than bytes; the same lists are meant again and again")
    return refs


def _is_of_split(said: Any, wanted: str | None) -> bool:
    return wanted is None or said == wanted or (wanted == "test" and said in ("testA", "testB", "testC"))


def _of_ref(coco: CocoFile, ref: dict[str, Any], where: str, on_error: OnError) -> list[Described]:
    number = ref.get("ref_id")
    if isinstance(number, bool) or not isinstance(number, int | str):
        raise ValueError(f"{where}: ref_id must be a whole number or a string, got {short(number)}")
    where = f"{where} (ref_id {number})"
    picture = ref.get("image_id")
    if isinstance(picture, bool) or not isinstance(picture, int | str) or picture not in coco.pictures:
        raise ValueError(f"{where}: image_id {short(picture)} is none of the images of {coco.file}")
    sentences = ref.get("sentences")
    if not isinstance(sentences, list) or not sentences:
        raise ValueError(f"{where}: sentences must be a list with at least one, got {short(sentences)}")
    wanted = _wanted(coco, ref, where)
    recipe = coco.recipe(wanted, picture, listed=isinstance(ref.get("ann_id"), list))
    path = coco.picture(picture)[0]
    samples = []
    for i, sentence in enumerate(sentences):
        query = sentence.get("sent") if isinstance(sentence, dict) else None
        if not isinstance(query, str) or not query.strip():
            refuse(f"{where}: sentences[{i}].sent must be text, got {short(query)}", on_error)
            continue
        tail = sentence.get("sent_id", i if len(sentences) > 1 else None)
        samples.append(Described(str(number) if tail is None else f"{number}-{tail}", path, query, recipe))
    return samples


def _wanted(coco: CocoFile, ref: dict[str, Any], where: str) -> list[Annotation]:
    given = ref.get("ann_id")
    numbers = given if isinstance(given, list) else [given]
    wanted: list[Annotation] = []
    for number in [] if numbers == [NO_TARGET] else numbers:
        if isinstance(number, bool) or not isinstance(number, int | str) or number not in coco.annotations:
            raise ValueError(f"{where}: ann_id {short(number)} is none of the annotations of {coco.file}")
        found = coco.annotations[number]
        if found.picture != ref["image_id"]:
            raise ValueError(f"{where}: ann_id {number} belongs to image {found.picture}, not {ref['image_id']}")
        if found not in wanted:
            wanted.append(found)
    return wanted
