"""A trainer's arguments to a reward function, as plain lists: completions as texts, columns, one picture per row."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from dpad_fast._row_values import missing
from dpad_fast.row_images import images_from

# Where chat templates and parsers of responses put the chain of thoughts.
_THOUGHTS = ("reasoning_content", "thinking", "reasoning")


def completion_texts(completions: Sequence[Any]) -> list[str]:
    """The text of each completion, plain or conversational.

    Args:
        completions: strings, or conversations whose last message's `content` is a string or a list of text parts.
            Thoughts that a parser put beside the content (`reasoning_content`, `thinking` or `reasoning`) stand before
            it as `<think>...</think>`, unless the content has such a tag itself.

    Returns:
        One string per completion; the last message counts.

    Raises:
        ValueError: if a completion is neither; names its index.
    """
    texts = []
    for text in texts_or_errors(completions):
        if isinstance(text, ValueError):
            raise text
        texts.append(text)
    return texts


def texts_or_errors(completions: Sequence[Any]) -> list[str | ValueError]:
    """`completion_texts`; the `ValueError` stands for a completion that is neither a string nor a conversation."""
    texts: list[str | ValueError] = []
    for index, completion in enumerate(completions):
        try:
            texts.append(_text(completion, f"completions[{index}]"))
        except ValueError as error:
            texts.append(error)
    return texts


def _text(completion: Any, name: str) -> str:
    if isinstance(completion, str):
        return completion
    if not isinstance(completion, Sequence) or not completion or not isinstance(completion[-1], Mapping):
        raise ValueError(f"{name} is neither a string nor a list of messages: {_short(completion)}")
    message = completion[-1]
    content, inside = _content(message.get("content"), name)
    beside = next((message[key] for key in _THOUGHTS if message.get(key)), inside)
    if not beside or "<think>" in content:
        return content
    if not isinstance(beside, str):
        raise ValueError(f"{name}: the thoughts of a message must be a string, got {_short(beside)}")
    return f"<think>{beside}</think>{content}"


def _content(content: Any, name: str) -> tuple[str, str]:
    """Text of a message's content, and the thoughts among its parts."""
    if content is None or isinstance(content, str):
        return content or "", ""
    if not isinstance(content, Sequence) or not all(isinstance(part, str | Mapping) for part in content):
        raise ValueError(f"{name}: content must be a string or a list of parts, got {_short(content)}")
    texts, thoughts = [], []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif part.get("type") in _THOUGHTS:
            thoughts += [str(part[key]) for key in (*_THOUGHTS, "text") if part.get(key)][:1]
        elif part.get("text") is not None:
            texts.append(str(part["text"]))
    return "".join(texts), "".join(thoughts)


def read_columns(columns: Mapping[str, Any], count: int, needed: Sequence[str]) -> dict[str, list[Any]]:
    """The columns among a call's keywords, as lists of N.

    Args:
        columns: the keywords; a column is a list, tuple, array, tensor, data frame's or `datasets` column.
        count: N.
        needed: names of columns that are read, if they are there.

    Raises:
        ValueError: a needed column has another length; names it.
    """
    found = {}
    for name, value in columns.items():
        length = _length(value)
        if length == count:
            found[name] = _as_list(value)
        elif length is not None and name in needed:
            raise ValueError(f"{name} has {length} entries for {count} completions")
    return found


def _length(value: Any) -> int | None:
    if isinstance(value, str | bytes | Mapping) or not hasattr(value, "__getitem__"):
        return None
    try:
        return len(value)
    except TypeError:
        return None


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, np.ndarray | torch.Tensor) and value.ndim == 1:
        plain: list[Any] = value.tolist()  # numbers of the libraries are equal where Python's are, but hash otherwise
        return plain
    return list(value)


def read_images(lists: Mapping[str, list[Any]], column: str | None = None, *, in_prompts: bool = False) -> list[Any]:
    """One picture per row; a `ValueError` stands for a row without one.

    Args:
        lists: the columns.
        column: that of the pictures; None: `image`, else `images`, else the pictures within `prompts`.
        in_prompts: prompts of this data set are known to hold pictures, though these may not.

    Returns:
        N entries: what `RewardScorer.score` takes as a picture (the one that `images_from` finds in the entry), or the
        `ValueError` that says what the row holds instead.

    Raises:
        ValueError: there is no such column.
    """
    wanted = ("image", "images") if column is None else (column,)
    name = next((name for name in wanted if name in lists), None)
    if name is not None:
        return [_one_image(entry, index, name) for index, entry in enumerate(lists[name])]
    if column is None and "prompts" in lists:
        found = [_one_image(entry, index, "prompts") for index, entry in enumerate(lists["prompts"])]
        if in_prompts or not all(isinstance(image, ValueError) for image in found):
            return found
    needs = "an image or images column" if column is None else f"the column {column!r:.80}"
    raise ValueError(f"the data set needs {needs}; its columns are {sorted(lists)}")


def _one_image(entry: Any, index: int, name: str) -> Any:
    where = f"images[{index}]" + ("" if name == "images" else f" (column {name})")
    try:
        found = images_from({where: entry}, where)
    except ValueError as error:
        return error
    if len(found) == 1:
        return found[0]
    held = "is None" if missing(entry) else f"holds {len(found)} images, expected exactly one"
    return ValueError(f"{where} {held}")


def row_key(value: Any) -> Hashable:
    """A row's id as something that can be compared: lists, dictionaries and arrays by their content."""
    try:
        hash(value)
    except TypeError:
        return frozen(value.tolist() if isinstance(value, np.ndarray | torch.Tensor) else value)
    return value if not isinstance(value, torch.Tensor) else frozen(value.tolist())


class _Itself:
    """An object that is equal to itself alone. Where its type allows it is not kept alive, and equals nothing after."""

    def __init__(self, value: Any) -> None:
        self._hash = id(value)
        self._value: Callable[[], Any]
        try:
            self._value = weakref.ref(value)
        except TypeError:
            self._value = lambda: value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Itself):
            return False
        value = self._value()
        return self is other or (value is not None and value is other._value())

    def __hash__(self) -> int:
        return self._hash


def frozen(value: Any) -> Hashable:
    """A value's content now, to be compared later: lists and dictionaries by content, objects by identity."""
    if value is None or isinstance(value, str | bytes | int | float):
        return value
    if isinstance(value, list | tuple):
        return (list, *map(frozen, value))
    if isinstance(value, Mapping):
        return (dict, *((frozen(key), frozen(entry)) for key, entry in value.items()))
    return _Itself(value)


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:80] + "..."
