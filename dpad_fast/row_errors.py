"""Errors of rows that cannot be scored: raised at once, or kept by row."""

from __future__ import annotations

import re
from collections.abc import Sequence

ON_ERROR = ("raise", "row")
# Every message begins with the argument that is wrong.
_CODES = {
    "completions[": "bad-completion",
    "targets[": "bad-target",
    "images[": "bad-image",
    "image_keys[": "bad-image",
    "model_sizes[": "bad-size",
}

_PLACE = re.compile(r"\b(completions|targets|images|image_keys|model_sizes)\[(\d{1,9})\]")


def moved(message: str | None, by: int) -> str | None:
    """A row's message as it would be were the batch to begin elsewhere: `by` is added to the index of every argument.

    An index that would be negative is no row of the batch, but a word of the user's, and stays.
    """
    if message is None or by == 0:
        return message

    def place(found: re.Match[str]) -> str:
        index = int(found[2]) + by
        return found[0] if index < 0 else f"{found[1]}[{index}]"

    return _PLACE.sub(place, message)


class RowErrors:
    """The rows of a batch that cannot be scored.

    Args:
        on_error: "raise": the first error is raised where it is found; "row": errors are kept, one per row.

    Raises:
        ValueError: `on_error` is neither.
    """

    def __init__(self, on_error: str = "raise") -> None:
        if on_error not in ON_ERROR:
            raise ValueError(f"on_error must be one of {', '.join(ON_ERROR)}, got {on_error!r}")
        self.kept = on_error == "row"
        self._messages: dict[int, str] = {}

    def add(self, row: int, error: ValueError) -> None:
        """Raises the error, or keeps it; the first one of a row counts."""
        if not self.kept:
            raise error
        # Rows that share a picture share its error, which names the first of them.
        self._messages.setdefault(row, re.sub(r"^images\[\d+\]", f"images[{row}]", str(error)))

    def __contains__(self, row: int) -> bool:
        return row in self._messages

    def scored(self, count: int) -> Sequence[int]:
        """Those of N rows that are not left out so far, in order."""
        return [i for i in range(count) if i not in self._messages] if self._messages else range(count)

    def rows(self) -> list[int]:
        """The rows that are left out, in the order in which they were found."""
        return list(self._messages)

    def messages(self, count: int) -> tuple[str | None, ...]:
        """N messages, None where a row is scored."""
        return tuple(self._messages.get(i) for i in range(count)) if self._messages else (None,) * count

    def code(self, row: int) -> str:
        """The reason code of a row that is left out."""
        message = self._messages[row]
        return next((code for start, code in _CODES.items() if message.startswith(start)), "bad-row")


def given_error(entry: object, name: str) -> None:
    """Raises where an entry is a `ValueError` from reading it; the message begins with `name`."""
    if not isinstance(entry, ValueError):
        return
    message = str(entry)
    found = _PLACE.match(message)
    if found is not None and name.startswith(f"{found[1]}["):  # it was read by itself, or in another batch
        raise ValueError(name + message[found.end() :])
    raise ValueError(message if message.startswith(name) else f"{name}: {message}")


def no_text(entry: object, name: str) -> ValueError:
    """The error for an entry that is no string."""
    try:
        given_error(entry, name)
    except ValueError as error:
        return error
    return ValueError(f"{name} must be a string, got {type(entry).__name__}")
