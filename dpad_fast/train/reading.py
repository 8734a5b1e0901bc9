"""Settings from YAML: files with a `base`, overrides, and dataclasses whose every value is checked against its type."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

BELOW = 2**31  # every whole number: what torch, NumPy and the Trainer all take as a size or a seed
REMOVED = {"save_model": "is gone: it was never read; the trained policy is always kept in out/policy"}


def read_settings(path: str | Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """The settings of a YAML file, those of its `base` below them and the overrides above.

    Args:
        path: a YAML file. Its key `base` may name another file, relative to it, whose settings it changes.
        overrides: texts of the form `rewards.shape=margin`; values are read as YAML.

    Returns:
        Nested dictionaries.

    Raises:
        ValueError: for what is not YAML or not a mapping, files that go in a circle, an override of another form.
        FileNotFoundError: if there is no such file.
    """
    values = _read(Path(path), seen=())
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError(f"--set {text!r:.80} is not of the form key=value")
        try:
            _assign(values, key.strip().split("."), _yaml(value))
        except (yaml.YAMLError, RecursionError) as error:
            raise ValueError(f"--set {key:.80}: {_short(value)} is not valid YAML") from error
    return values


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = path.resolve()
    if path in seen:
        raise ValueError(f"{path}: the files' base keys go in a circle")
    try:
        values = _yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a mapping of settings, got {type(values).__name__}")
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ValueError(f"{path}: base must name a file, got {_short(base)}")
    merged = _read(path.parent / base, (*seen, path))
    _merge(merged, values)
    return merged


def _yaml(text: str) -> Any:
    """What the text holds; a date of no calendar or a number of thousands of digits is no valid YAML either."""
    try:
        return yaml.safe_load(text)
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        raise yaml.YAMLError(str(error)) from error


def _short(value: Any) -> str:
    """A value as a message shows it."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python prints
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _assign(values: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        step = values.setdefault(key, {})
        if not isinstance(step, dict):
            raise ValueError(f"--set {'.'.join(keys):.80}: {key:.80} is not a section")
        values = step
    values[keys[-1]] = value


def section(cls: Any, values: Any, prefix: str) -> Any:
    """An instance of a configuration class, every value checked against its field's type."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{prefix.rstrip('.')} must be a section of settings, got {values!r:.80}")
    hints = typing.get_type_hints(cls)
    for key in values:
        if not prefix and key in REMOVED:
            raise ValueError(f"setting {key} {REMOVED[key]}")
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else f"; known: {', '.join(hints)}"
            raise ValueError(f"unknown setting {prefix}{key!s:.80}{hint}")
    return cls(**{key: _value(hints[key], value, f"{prefix}{key}") for key, value in values.items()})


def _value(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return section(hint, value, f"{name}.")
    origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{name} must be a list, got {value!r:.80}")
        inner = typing.get_args(hint)[0]
        return tuple(_value(inner, item, f"{name}[{i}]") for i, item in enumerate(value))
    if origin is not None:
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} must be a section of settings, got {_short(value)}")
        try:
            json.dumps(dict(value))
        except (TypeError, ValueError, RecursionError) as error:  # a date, a set; a section that holds itself
            raise ValueError(f"{name} must hold texts, numbers, lists and sections: {error}") from None
        return dict(value)
    if hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        return _number(value, name)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ValueError(f"{name} must be of type {hint.__name__}, got {_short(value)}")
    if hint is int and not -BELOW < value < BELOW:
        raise ValueError(f"{name} must be below {BELOW}, got {_short(value)}")
    if hint is str and ("\0" in value or value.encode(errors="ignore").decode() != value):
        raise ValueError(f"{name} must be a text without NUL and lone surrogates, got {_short(value)}")
    return value


def _number(value: float | str, name: str) -> float:
    """A finite float; YAML reads 1e-4 as a text."""
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{name} must be a number, got {_short(value)}") from None
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number, got {_short(value)}")
    return number
