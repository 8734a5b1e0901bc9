"""The rows of a call of the client, as plain data: what cannot be read becomes the error of its row."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpad_fast.model_size import whole_size
from dpad_fast.pictures import what_was_said
from dpad_fast.rewards.spaces import sizes_of
from dpad_fast.row_errors import no_text
from dpad_fast.serve import wire
from dpad_fast.serve.transport import Server
from dpad_fast.types import Target


@dataclass
class OutgoingRows:
    """The rows of a call, ready to be sent.

    Attributes:
        columns: the arguments of `RewardScorer.score`, as plain data.
        names: what to call the number of an image key in a message.
        pictures: by their SHA-256, what makes their bytes.
        server: the one that gets the pictures first; None where it did not take one.
    """

    columns: dict[str, list[Any] | None] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    pictures: dict[str, Callable[[], bytes]] = field(default_factory=dict)
    server: Server | None = None


def text_entry(text: Any, name: str) -> Any:
    """A completion, or what is wrong with it."""
    return wire.text_out(text) if isinstance(text, str) else wire.failure_out(no_text(text, name))


def target_entry(target: Any, i: int) -> Any:
    """A ground truth, or what is wrong with it."""
    if isinstance(target, str):
        return wire.text_out(target)
    if isinstance(target, Target):
        return wire.target_out(target)
    if isinstance(target, ValueError):
        return wire.failure_out(target)
    return wire.failure_out(f"targets[{i}] must be a Target or a string, got {type(target).__name__}")


def file_bytes(path: str, name: str) -> bytes:
    """What is in a file; a `ValueError` that begins with `name` where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise ValueError(f"{name} cannot be opened as an image: {what_was_said(error)}"[:400]) from None


def key_entries(keys: list[Any], made: OutgoingRows) -> list[int | None]:
    """A number for each distinct key; a row whose key has no hash has no picture either."""
    numbers: dict[Hashable, int] = {}
    found: list[int | None] = []
    for i, key in enumerate(keys):
        number = None
        try:
            number = None if key is None else numbers.setdefault(key, len(numbers))
        except TypeError:
            error = f"image_keys[{i}] cannot be hashed: {str(key)[:80]!r}"
            assert made.columns["images"] is not None
            made.columns["images"][i] = wire.failure_out(error)
        found.append(number)
        if number is not None:
            made.names.setdefault(str(number), str(key)[:80].encode("utf-8", "replace").decode())
    return found


def size_entries(sizes: Any, images: list[Any] | None) -> list[Any] | None:
    """N sizes as pairs; what is none becomes the error of its row."""
    if sizes is None:
        return None
    if callable(sizes):
        sizes = sizes_of(sizes, images or ())
    found: list[Any] = []
    for i, size in enumerate(sizes.tolist() if hasattr(sizes, "tolist") else list(sizes)):
        try:
            if isinstance(size, ValueError):
                found.append(wire.failure_out(size))
            else:
                found.append(None if size is None else list(whole_size(size, f"model_sizes[{i}]")))
        except ValueError as error:
            found.append(wire.failure_out(error))
    return found


def digests_of(rows: OutgoingRows, first: int, end: int) -> list[str]:
    """The pictures that some rows name, each once."""
    images = rows.columns["images"]
    entries = [] if images is None else images[first:end]
    return list(dict.fromkeys(entry["sha256"] for entry in entries if "sha256" in entry))


def body_of(rows: OutgoingRows, first: int, end: int, *, inline: bool = False) -> bytes:
    """The body of a request for some rows; `inline` puts the pictures into it."""
    columns: dict[str, Any] = {name: None if c is None else c[first:end] for name, c in rows.columns.items()}
    if inline:
        columns["images"] = [
            {k: v for k, v in entry.items() if k != "sha256"}
            | {"base64": base64.b64encode(rows.pictures[entry["sha256"]]()).decode()}
            if "sha256" in entry
            else entry
            for entry in columns["images"]
        ]
    if rows.names:
        numbers = dict.fromkeys(str(key) for key in columns["image_keys"] or () if key is not None)
        columns["key_names"] = {number: rows.names[number] for number in numbers}
    return json.dumps(columns, allow_nan=False, separators=(",", ":")).encode()
