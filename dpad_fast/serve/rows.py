"""From a request's body to the arguments of the scorer: decoded in a thread, within the server's limits."""

from __future__ import annotations

import base64
import binascii
import itertools
from dataclasses import dataclass, field
from typing import Any

from dpad_fast.pictures import MAX_PIXELS_VARIABLE, data_uri_bytes, max_pixels
from dpad_fast.serve import wire
from dpad_fast.serve.pictures import PictureStore, Stored, read_inside, weighed
from dpad_fast.serve.schema import FailureIn, MaskIn, PictureIn, ScoreRequest, TargetIn, TextIn
from dpad_fast.serve.settings import Refusal, Settings
from dpad_fast.types import Target

_serial = itertools.count()
_HASHED = frozenset(("box", "points", "image_size", "text"))
_KINDS = ("sha256", "base64", "path", "error", "size", "unreadable")


@dataclass
class Rows:
    """The arguments of `MicroBatcher.submit_rows`, and the bytes of pictures and masks that they hold."""

    completions: list[Any]
    targets: list[Any]
    images: list[Any] | None = None
    image_keys: list[Any] | None = None
    model_sizes: list[Any] | None = None
    held: int = 0

    def columns(self) -> tuple[Any, ...]:
        """The columns, in the order of the arguments."""
        return self.completions, self.targets, self.images, self.image_keys, self.model_sizes


@dataclass(frozen=True)
class _Key:
    """A caller's key: another request may use the same number for another picture."""

    request: int
    number: int
    name: str = field(compare=False)

    def __str__(self) -> str:
        return self.name


def read_request(request: ScoreRequest, store: PictureStore, settings: Settings, looks: bool = True) -> Rows:
    """The rows of `/score`.

    Args:
        request: the body.
        store: pictures that were sent.
        settings: limits.
        looks: whether the scorer looks at pixels.

    Raises:
        Refusal: the lists have different lengths, or it asks for too much, for what it may not have, or for pictures
            that are not there.
    """
    count = len(request.completions)
    if count > settings.rows:
        raise Refusal(413, f"completions has {count} entries, more than the {settings.rows} of a request")
    for name in ("targets", "images", "image_keys", "model_sizes"):
        column = getattr(request, name)
        if column is not None and len(column) != count:
            raise Refusal(422, f"{name} has {len(column)} entries for {count} completions")
    serial, names = next(_serial), request.key_names
    masks = _Masks(settings.masks)
    rows = Rows(
        completions=[_text(entry, f"completions[{i}]") for i, entry in enumerate(request.completions)],
        targets=_targets(request.targets, masks),
        held=masks.pixels,  # a byte each
    )
    if request.images is not None:
        found = _Pictures(store, settings, looks)
        rows.images = [found.image(entry, f"images[{i}]") for i, entry in enumerate(request.images)]
        rows.held += found.finish()
        if rows.held > settings.held // 2:
            raise Refusal(413, "the pictures and masks of this request are more than the server takes at once")
        if request.image_keys is not None:
            rows.image_keys = [
                None if key is None else _Key(serial, key, names.get(str(key), str(key))) for key in request.image_keys
            ]
    if request.model_sizes is not None:
        rows.model_sizes = [
            ValueError(entry.error) if isinstance(entry, FailureIn) else entry for entry in request.model_sizes
        ]
    return rows


def is_light(request: ScoreRequest) -> bool:
    """Whether reading the rows takes microseconds: nothing in them is decoded or comes from a disk."""
    plain = all(not isinstance(target, TargetIn) or target.model_fields_set <= _HASHED for target in request.targets)
    return plain and not any(image.path or image.base64 or image.shape for image in request.images or ())


def read_pictures(pictures: list[PictureIn], store: PictureStore, settings: Settings) -> tuple[list[Any], int]:
    """Images for the scorer, and the bytes that they hold; raises as `read_request`."""
    found = _Pictures(store, settings, looks=True)
    return [found.image(entry, f"images[{i}]") for i, entry in enumerate(pictures)], found.finish()


def picture_of_label(text: str) -> PictureIn:
    """A picture as a label names it: `sha256:HEX`, a data URI, or a path inside the root."""
    if text[:5].lower() == "data:":
        try:
            return PictureIn(base64=base64.b64encode(data_uri_bytes(text, "image")).decode())
        except ValueError as error:
            raise Refusal(422, f"a label's {error}") from None
    kind, _, digest = text.partition("sha256:")
    if not kind and len(digest) == 64 and set(digest) <= set("0123456789abcdef"):
        return PictureIn(sha256=digest)
    return PictureIn(path=text)


class _Masks:
    """Masks of a request: equal ones are decoded once, and all of them together are bounded."""

    def __init__(self, most: int) -> None:
        self._most, self.pixels = most, 0
        self._made: dict[tuple[tuple[int, int], str], Any] = {}

    def decoded(self, mask: MaskIn | None) -> Any:
        if mask is None:
            return None
        key = (mask.size, mask.counts)
        if key not in self._made:
            height, width = mask.size
            if height < 1 or width < 1:
                raise ValueError(f"mask has no pixel: its size is {list(mask.size)}")
            if height * width > max_pixels():
                limit = f"the limit of {max_pixels()}; {MAX_PIXELS_VARIABLE} moves it"
                raise ValueError(f"mask has {width} x {height} pixels, more than {limit}")
            self.pixels += height * width
            if self.pixels > self._most:
                raise Refusal(413, "the masks of this request have more pixels than the server takes at once")
            self._made[key] = wire.mask_in(mask.size, mask.counts)
        return self._made[key]


class _Pictures:
    """Pictures of a request: each is looked up once, and all of them together are bounded."""

    def __init__(self, store: PictureStore, settings: Settings, looks: bool) -> None:
        self._store, self._settings, self._looks = store, settings, looks
        self._known: dict[tuple[str, str], Stored | None] = {}
        self._missing: dict[str, None] = {}
        self._images: dict[Any, Any] = {}  # one object for equal pictures
        self._bytes = self._pixels = 0

    def image(self, entry: PictureIn, name: str) -> Any:
        given = [kind for kind in _KINDS if getattr(entry, kind) is not None]
        if len(given) != 1:
            raise Refusal(422, f"{name} must have exactly one of {', '.join(_KINDS)}, got {given or 'none'}")
        kind = given[0]
        if kind == "error":
            return ValueError(entry.error)
        if kind in ("size", "unreadable"):
            if self._looks:
                raise Refusal(422, f"{name}.{kind} is no picture, and this scorer looks at pictures")
            return wire.size_in(entry.size, entry.unreadable)
        key = (kind, getattr(entry, kind))
        if key not in self._known:
            self._known[key] = self._find(entry, name)
        found = self._known[key]
        if found is None:
            return ValueError(f"{name} cannot be opened as an image: No such file or directory: {key[1]!r:.80}")
        if entry.shape is None or entry.sha256 in self._missing:
            return found.content
        shaped = (*key, *entry.shape)
        if shaped not in self._images:
            try:
                self._images[shaped] = wire.picture_in(wire.PictureBytes(found.content, tuple(entry.shape)), name)
            except ValueError as error:
                return error
        return self._images[shaped]

    def finish(self) -> int:
        """The bytes that are held; raises where pictures are missing."""
        if self._missing:
            missing = list(self._missing)
            raise Refusal(
                409, f"{len(missing)} pictures are not known here; PUT /pictures/SHA256 them", missing=missing
            )
        return self._bytes

    def _find(self, entry: PictureIn, name: str) -> Stored | None:
        found: Stored | None
        if entry.sha256 is not None:
            found = self._store.get(entry.sha256)
            if found is None:
                self._missing[entry.sha256] = None
                return weighed(b"")
        elif entry.base64 is not None:
            try:
                found = weighed(base64.b64decode(entry.base64, validate=True))
            except (binascii.Error, ValueError) as error:
                raise Refusal(422, f"{name}.base64 cannot be read: {error}") from None
        else:
            content = read_inside(self._settings.root, entry.path or "", self._settings.picture)
            found = None if content is None else weighed(content)
        if found is None:
            return None
        if len(found.content) > self._settings.picture:
            raise Refusal(413, f"{name} has {len(found.content)} bytes, more than the {self._settings.picture} allowed")
        self._bytes += len(found.content)
        self._pixels += found.pixels
        if self._pixels > self._settings.pixels or self._bytes > self._settings.held // 2:
            raise Refusal(413, "the pictures of this request are more than the server takes at once")
        return found


def _text(entry: str | TextIn | FailureIn, name: str) -> Any:
    if isinstance(entry, str):
        return entry
    if isinstance(entry, FailureIn):
        return ValueError(entry.error)
    try:
        return wire.text_in(base64.b64decode(entry.base64, validate=True))
    except ValueError as error:
        raise Refusal(422, f"{name}.base64 is no text: {error}") from None


def _targets(entries: list[str | TextIn | TargetIn | FailureIn], masks: _Masks) -> list[Any]:
    """Targets, of which a group's completions share one."""
    found: list[Any] = []
    made: dict[Any, Any] = {}
    for i, entry in enumerate(entries):
        key = None
        if isinstance(entry, TargetIn) and not entry.model_fields_set - _HASHED:
            key = (entry.box, entry.points, entry.image_size, entry.text)
        target = made.get(key)
        if target is None:
            target = _target(entry, f"targets[{i}]", masks)
            if key is not None and isinstance(target, Target):
                made[key] = target
        found.append(target)
    return found


def _target(entry: str | TextIn | TargetIn | FailureIn, name: str, masks: _Masks) -> Any:
    if not isinstance(entry, TargetIn):
        return _text(entry, name)
    try:
        return Target(
            box=entry.box,
            points=entry.points,
            image_size=entry.image_size,
            mask=masks.decoded(entry.mask),
            ignore=masks.decoded(entry.ignore),
            polygons=entry.polygons,  # type: ignore[arg-type]  # lists become arrays there
            objects=tuple(entry.objects or ()),
            other_boxes=tuple(entry.other_boxes or ()),
            text=_text(entry.text, f"{name}.text"),
        )
    except ValueError as error:
        return ValueError(f"{name}: {error}")
