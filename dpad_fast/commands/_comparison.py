"""The other side of `dpad-fast evaluate --compare`: looked at before the work, counted after it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from dpad_fast.evaluate.summary import Sums

_MARKS = b"\xef\xbb\xbf \t\r\n"


def looked_at(path: str | None, predictions: str, protocols: Sequence[str]) -> Sums | None:
    """What `--compare` names, as far as it can be known before hours of work.

    Args:
        path: of other predictions or of a JSON of evaluate; None where nothing is compared.
        predictions: what `--predictions` names.
        protocols: that both sides are measured by.

    Returns:
        The sums of a JSON of evaluate; None of predictions, which are to be measured, and where there is nothing.

    Raises:
        ValueError: the file is no JSON of evaluate by these protocols, or standard input is both sides; names it.
        OSError: nothing is there.
    """
    if path is None:
        return None
    if path == "-":
        if predictions == "-":
            raise ValueError("--compare is standard input (-), and so are the predictions")
        return None
    if Path(path).is_dir():
        return None
    with open(path, "rb") as file:
        # A list is what the released evaluation writes.
        if not path.endswith(".json") or file.read(64).lstrip(_MARKS).startswith(b"["):
            return None
    return _sums(path, protocols)


def _sums(path: str, protocols: Sequence[str]) -> Sums:
    from dpad_fast.evaluate import summary

    name = f"--compare {path}"
    try:
        content = json.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # bytes that are no UTF-8, too
        why = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{name} is not valid JSON: {why}") from None
    rows = content.get("records") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(_judged(row, protocols) for row in rows):
        raise ValueError(f"{name} is no JSON of evaluate with {', '.join(protocols)}")
    sums = summary.Sums(tuple(protocols))
    for i, row in enumerate(rows):
        try:
            sums.add(row)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"{name}: records[{i}] is not whole: {what}") from None
    if not np.isfinite(sums.matrix()).all():
        raise ValueError(f"{name} holds numbers that are not finite")
    return sums


def _judged(row: Any, protocols: Sequence[str]) -> bool:
    """Whether a record has an id and what each protocol counted."""
    if not isinstance(row, Mapping) or not isinstance(row.get("id"), str):
        return False
    own = row.get("protocols")
    return isinstance(own, dict) and all(name in own and _is_verdict(own[name]) for name in protocols)


def _is_verdict(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, list) and len(value) == 3 and all(type(number) in (int, float) for number in value)
