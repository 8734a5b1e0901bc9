"""One door to every form of data: `load` reads samples, `detect` tells which form a file or folder has."""

from __future__ import annotations

import importlib
import itertools
import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpad_fast.data.deferred import Deferred
from dpad_fast.types import Sample

if TYPE_CHECKING:
    from dpad_fast._row_columns import Columns

FORMS = ("reasonseg", "refcoco", "coco", "grandf", "released", "multi-object", "rows", "shapes")
OnError = Callable[[str], None]

_MODULES = {"multi-object": "released"}  # one module reads both, by what stands in the column
_TABLES = (".jsonl", ".ndjson", ".csv", ".tsv")
_LOOKED_FOR = (
    "instances.json with refs(*).p, refs(*).json or grefs(*).json (refcoco); a JSON file with images and annotations "
    "(coco); one with groundings, refs or sam_mask (grandf); NAME.json beside NAME.jpg (reasonseg); *.parquet or "
    "dataset_info.json (released, rows); .jsonl, .csv or .tsv (rows); shapes:SEED:COUNT (shapes)"
)


def load(
    path: Any,
    form: str | None = None,
    *,
    columns: Columns | None = None,
    split: str | None = None,
    images: str | os.PathLike[str] | None = None,
    limit: int = 0,
    on_error: OnError | None = None,
    points: bool = True,
) -> Iterator[Sample]:
    """Reads the samples of a data set in any of the forms, one after the other, in bounded memory.

    Args:
        path: a file or folder; for the form "shapes" the text `shapes:SEED:COUNT` or a number of scenes of world 0; for
            the forms of rows also a data frame, a `datasets.Dataset`, or a list of dictionaries.
        form: one of `FORMS`; None: what `detect` finds, or "rows" where `columns` is given.
        columns: the names of the columns, only for the form "rows".
        split: only the samples of that split, where the form has splits.
        images: folder of the pictures, where the annotations name them relative to one; not of the forms "reasonseg"
            and "shapes".
        limit: so many samples at most; 0: all.
        on_error: called with one message for every row that cannot be read, which is then left out; the message names
            the file and the row. None: the first such row raises.
        points: False leaves out points that would have to be derived from a mask, which takes most of the time.

    Returns:
        An iterator of samples, their targets in pixels of the picture.

    Raises:
        ValueError: an argument is not as described, nothing is at `path`, no form fits, or (while iterating, without
            `on_error`) a row cannot be read.
    """
    form = _form(path, form, columns, limit)
    if not points:
        later = defer(path, form, columns=columns, split=split, images=images, on_error=on_error, points=False)
        samples: Iterable[Sample] = _read_all(later, on_error)
    else:
        named = {"columns": columns} if form == "rows" else {}
        samples = _reader(form)(path, split=split, images=images, on_error=on_error, **named)
    return itertools.islice(samples, limit) if limit else iter(samples)


def _form(path: Any, form: str | None, columns: Any, limit: Any) -> str:
    if form is None:
        form = "rows" if columns is not None else detect(path)
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r:.80}")
    if columns is not None and form != "rows":
        raise ValueError(f"columns is for the form 'rows', but form is {form!r}")
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise ValueError(f"limit must be a whole number, 0 for all samples, got {limit!r:.80}")
    return form


def _read_all(later: Iterable[Deferred], on_error: OnError | None) -> Iterator[Sample]:
    for one in later:
        try:
            sample = one.read()
        except ValueError as error:
            if on_error is None:
                raise
            on_error(str(error))
        else:
            yield sample


def defer(
    path: Any,
    form: str | None = None,
    *,
    columns: Columns | None = None,
    split: str | None = None,
    images: str | os.PathLike[str] | None = None,
    limit: int = 0,
    on_error: OnError | None = None,
    points: bool = True,
) -> Iterator[Deferred]:
    """The samples of a data set with their ids known and the rest read later, by whichever process asks for it.

    Args:
        path: see `load`.
        form: see `load`.
        columns: see `load`.
        split: see `load`.
        images: see `load`.
        limit: so many samples at most, one that cannot be read counted, too; 0: all.
        on_error: called with one message for everything of which not even the id can be told; what only reading finds
            is raised by the sample. None: the first one raises.
        points: see `load`.

    Returns:
        An iterator, in the order of `load`. Nothing is read ahead but ids (and headers of the pictures of COCO's
        forms); in the form "grandf" a caption's masks are drawn here, for their boxes are one another's others.

    Raises:
        ValueError: as `load`.
    """
    form = _form(path, form, columns, limit)
    settings: dict[str, Any] = {"split": split, "images": images, "on_error": on_error, "points": points}
    if form == "rows":
        settings["columns"] = columns
    if form in _DEFER_HERE:
        found = _DEFER_HERE[form](path, **settings)
    else:
        found = importlib.import_module(f"dpad_fast.data.{_MODULES.get(form, form)}").defer(path, **settings)
    return itertools.islice(found, limit) if limit else iter(found)


@dataclass(frozen=True)
class Source:
    """A data set and how it is read: the arguments of `load`, to be handed on together.

    Attributes:
        path: see `load`.
        form: see `load`.
        columns: see `load`.
        split: see `load`.
        images: see `load`.
        limit: see `defer`.
    """

    path: Any
    form: str | None = None
    columns: Columns | None = None
    split: str | None = None
    images: str | None = None
    limit: int = 0

    def defer(self, on_error: OnError | None = None, points: bool = True) -> Iterator[Deferred]:
        """See `defer`."""
        return defer(**vars(self), on_error=on_error, points=points)

    def samples(self, on_error: OnError | None = None, points: bool = True) -> Iterator[Sample]:
        """The samples that `defer` names."""
        return _read_all(self.defer(on_error, points), on_error)


def detect(path: Any) -> str:
    """The form of a file, a folder, a table in memory or a `shapes:SEED:COUNT`, told from names and from a look inside.

    Args:
        path: see `load`.

    Returns:
        One of `FORMS`; "released" stands for the multi-object form too, which the same reader reads.

    Raises:
        ValueError: nothing is at `path`, or it has none of the forms; says what was looked for.
    """
    if not isinstance(path, str | os.PathLike):
        if isinstance(path, int) and not isinstance(path, bool):
            return "shapes"
        return "rows"
    place = Path(path)
    if not place.exists():
        text = str(path)
        if text.isdigit() or text.split(":")[0] == "shapes":
            return "shapes"
        raise ValueError(f"path: no file or folder is there: {text!r:.200}; a data set of a hub needs its form named")
    form = _form_of_folder(place) if place.is_dir() else _form_of_file(place)
    if form is None:
        raise ValueError(f"path: {place} has none of the forms of data; looked for {_LOOKED_FOR}")
    return form


def _form_of_folder(folder: Path) -> str | None:
    names = {entry.name for entry in folder.iterdir()}
    if any(_is_refs(name) for name in names):
        return "refcoco"
    parquet = next(iter(sorted(itertools.chain(folder.glob("*.parquet"), folder.glob("*/*.parquet")))), None)
    if parquet is not None:
        return _form_of_file(parquet)
    if names & {"dataset_info.json", "dataset_dict.json", "state.json"}:
        return "released"
    found = {form for file in itertools.islice(sorted(folder.glob("*.json")), 8) if (form := _form_of_file(file))}
    if not found:
        found = {form for file in sorted(folder.glob("annotations/*.json"))[:8] if (form := _form_of_file(file))}
    for form in ("coco", "grandf", "reasonseg"):
        if form in found:
            return form
    return "rows" if any(Path(name).suffix in _TABLES for name in names) else None


def _is_refs(name: str) -> bool:
    return name.startswith(("refs(", "grefs(")) and name.endswith((".p", ".pkl", ".json"))


def _form_of_file(file: Path) -> str | None:
    if _is_refs(file.name) or file.suffix in (".p", ".pkl"):
        return "refcoco"
    if file.suffix == ".parquet":
        return _form_of_parquet(file)
    if file.suffix in _TABLES:
        return "rows"
    return _form_of_json(file) if file.suffix == ".json" else None


def _form_of_parquet(file: Path) -> str:
    try:
        from pyarrow import parquet
    except ImportError:
        return "released"  # whose reader says what to install
    try:
        names = set(parquet.read_schema(file).names)
    except Exception as error:  # pyarrow's errors are many
        raise ValueError(f"path: {file} cannot be read as Parquet: {str(error) or type(error).__name__:.160}") from None
    return "released" if {"problem", "solution"} <= names else "rows"


def _form_of_json(file: Path) -> str | None:
    """By the keys that stand in it: parsing would take the time and memory that loading takes again."""
    if not file.stat().st_size:
        return None
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        has = {name: content.find(f'"{name}"'.encode()) >= 0 for name in _KEYS}
        listed = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    if has["groundings"] or has["img_file_name"] or has["sam_mask"]:
        return "grandf"
    if listed:
        return "refcoco" if has["sentences"] else "rows"
    if has["annotations"] and has["images"]:
        return "coco"
    return "reasonseg" if has["shapes"] and has["text"] else None


_KEYS = ("groundings", "img_file_name", "sam_mask", "sentences", "annotations", "images", "shapes", "text")


def _reader(form: str) -> Callable[..., Iterable[Sample]]:
    if form in ("reasonseg", "shapes"):
        return {"reasonseg": _read_reasonseg, "shapes": _read_shapes}[form]
    reader: Callable[..., Iterable[Sample]] = importlib.import_module(f"dpad_fast.data.{_MODULES.get(form, form)}").load
    return reader


def _read_reasonseg(
    path: Any, *, split: str | None, on_error: OnError | None, images: Any = None, **_: Any
) -> Iterable[Sample]:
    from dpad_fast.data import reasonseg

    _refuse_images(images, _BESIDE)
    return reasonseg.load(reasonseg_folder(path, split), on_error=on_error)


def _defer_reasonseg(
    path: Any, *, split: str | None, on_error: OnError | None, points: bool, images: Any = None, **_: Any
) -> Iterator[Deferred]:
    from dpad_fast.data import reasonseg

    _refuse_images(images, _BESIDE)
    return reasonseg.defer(reasonseg_folder(path, split), on_error=on_error, points=points)


_BESIDE = "a ReasonSeg picture lies beside its JSON file"


def _refuse_images(images: Any, why: str) -> None:
    if images is not None:
        raise ValueError(f"images: {why}; got {str(images)!r:.80}")


def reasonseg_folder(path: Any, split: str | None) -> Path:
    """The folder of a split; PATH itself where none is named.

    Raises:
        ValueError: there is no such folder in PATH.
    """
    folder = Path(path)
    if split is not None:
        folder = folder / split
        if not folder.is_dir():
            raise ValueError(f"split: a ReasonSeg folder's splits are folders in it, and {folder} is none")
    return folder


def _read_shapes(path: Any, *, split: str | None, images: Any = None, **_: Any) -> Iterable[Sample]:
    from dpad_fast.data import shapes

    _refuse_images(images, "scenes of the shapes world are drawn")
    if split is not None:
        raise ValueError(f"split: the shapes world has no splits, only seeds, got {split!r:.80}")
    parts = str(path).split(":")
    numbers = parts if len(parts) == 1 else parts[1:]
    if (len(parts) != 1 and parts[0] != "shapes") or not all(part.isdigit() for part in numbers) or len(numbers) > 2:
        raise ValueError(f"path: the shapes world is shapes:SEED:COUNT or a number of scenes, got {str(path)!r:.80}")
    seed, count = (0, int(numbers[0])) if len(numbers) == 1 else (int(numbers[0]), int(numbers[1]))
    return itertools.islice(shapes.stream(seed), count)


def _defer_shapes(path: Any, **settings: Any) -> Iterator[Deferred]:
    from dpad_fast.data import shapes

    for sample in _read_shapes(path, **settings):
        yield Deferred(sample.id, partial(shapes.from_id, sample.id))


def _defer_grandf(path: Any, **settings: Any) -> Iterator[Deferred]:
    from dpad_fast.data import grandf

    for sample in grandf.load(path, **settings):
        yield Deferred(sample.id, partial(_itself, sample))


def _itself(sample: Sample) -> Sample:
    return sample


_DEFER_HERE: dict[str, Callable[..., Iterator[Deferred]]] = {
    "reasonseg": _defer_reasonseg,
    "shapes": _defer_shapes,
    "grandf": _defer_grandf,
}
