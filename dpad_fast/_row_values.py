"""Values of rows (NumPy, pandas, Arrow, text of a CSV cell) as plain Python, and the values that count as missing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

_NO_VALUE = ("NAType", "NaTType")  # of pandas, which need not be installed
_DEEP = 64


def missing(value: Any) -> bool:
    """Whether a value stands for none: None, NaN, pandas' NA and NaT, an Arrow null, text without a character."""
    if value is None or (isinstance(value, float | np.floating) and math.isnan(value)):
        return True
    if isinstance(value, str):
        return not value.strip()
    kind = type(value).__name__
    return kind in _NO_VALUE or (hasattr(value, "as_py") and value.as_py() is None)


def plain(value: Any) -> Any:
    """A value without the wrappers of Arrow, and lists in place of arrays of objects, as pandas has of nested lists."""
    if isinstance(value, str | int | float) or value is None:
        return value
    if hasattr(value, "as_py"):
        return value.as_py()
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [plain(item) for item in value.tolist()]
    return value.item() if isinstance(value, np.generic) else value


def as_mapping(row: Any) -> Mapping[str, Any]:
    """A row as a mapping: a dictionary, a `datasets` row, a data frame's row or a named tuple.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(row, Mapping):
        return row
    if hasattr(row, "_asdict"):
        return dict(row._asdict())
    if getattr(row, "ndim", 1) == 1 and hasattr(row, "to_dict"):
        return dict(row.to_dict())
    raise ValueError(f"row must be a mapping from column names to values, got {type(row).__name__}")


def look(row: Mapping[str, Any], name: str) -> Any:
    """The value of a column, or, where no column has this name, of `outer.inner` in a dictionary; None without one."""
    if name in row or "." not in name:
        return row.get(name)
    value: Any = row
    for part in name.split("."):
        value = plain(value)
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def has(row: Mapping[str, Any], name: str) -> bool:
    """Whether a row has this column, or the dictionary that the first part of `outer.inner` names."""
    return name in row or name.split(".")[0] in row


def from_text(text: str, name: str) -> Any:
    """Lists and numbers of a text cell: JSON, or numbers between commas or spaces, in any brackets or none.

    Raises:
        ValueError: it is neither; begins with `name`.
    """
    squared = text.strip().replace("(", "[").replace(")", "]")
    for form in (squared, f"[{squared}]", f"[{','.join(squared.split())}]"):
        try:
            found = json.loads(form)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, list | dict) and depth(found) <= _DEEP:
            return found
    raise ValueError(f"{name} is text that is neither JSON nor numbers: {text!r:.80}")


def depth(value: Any) -> int:
    """How many levels of lists there are down the first entries."""
    levels = 0
    while isinstance(value, list | tuple) and levels <= _DEEP:
        levels, value = levels + 1, value[0] if len(value) else None
    return levels
