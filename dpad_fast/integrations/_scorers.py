"""The scorer that an adapter calls, from the plain settings of a trainer's configuration or of a YAML file."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from dpad_fast.integrations._fork_lock import ForkLock
from dpad_fast.rewards.config import RewardConfig
from dpad_fast.rewards.interface import Scorer
from dpad_fast.rewards.scored_row import ScoredRow
from dpad_fast.rewards.spec import ScorerSpec
from dpad_fast.serve.client import RemoteScorer
from dpad_fast.types import ScoreBatch

__all__ = [
    "LOG_KEYS",
    "Scorer",
    "log_row",
    "scorer_from",
    "scorer_from_environment",
    "settings_from_environment",
]

VARIABLE = "DPAD_FAST_SCORER"
LOG_KEYS = ("total", "s1", "s2", "s1_over_s2", "malformed", "unscored", "reason", "error")
"""The keys of `log_row` that every configuration has; the terms of the configuration are further ones."""

_REMOTE = ("url", "token", "token_file", "retry_s", "timeout_s", "send_paths")
_LOCAL = ("preset", *(entry.name for entry in fields(ScorerSpec)))
SETTINGS = (*_REMOTE, *_LOCAL)
"""The settings that `scorer_from` knows."""

_built: dict[tuple[object, ...], Scorer] = {}
_building = ForkLock()


def scorer_from(settings: Mapping[str, Any]) -> Scorer:
    """Makes the scorer that plain settings describe, as YAML or Hydra gives them.

    Args:
        settings: either `url` (an address or a list of them) with `token` or `token_file`, `retry_s`, `timeout_s` and
            `send_paths`, for a `RemoteScorer`. Or `preset` (a name) or `config` (a mapping of reward settings, or the
            path of a YAML file of them; the preset "dpad" where there is neither) and the other fields of `ScorerSpec`:
            `encoder`, `backend`, `device`, `precision`, `threads`, `cache`. A value of None counts as not given.

    Raises:
        ValueError: an unknown setting (named, with the known ones), one that does not go with another, or a bad value.
        OSError: a file that is named cannot be read.
    """
    if not isinstance(settings, Mapping):
        raise ValueError(f"the scorer's settings must map names to values, got {type(settings).__name__}")
    given = {str(name): _plain(value) for name, value in settings.items() if value is not None}
    for name in given:
        if name not in SETTINGS:
            close = difflib.get_close_matches(name, SETTINGS, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise ValueError(f"unknown scorer setting {name!r:.80}{hint} Known settings: {', '.join(SETTINGS)}")
    remote = "url" in given
    for name in given:
        if name in (_LOCAL if remote else _REMOTE):
            why = "goes with no url: the server has its own" if remote else "is of a server, but url is missing"
            raise ValueError(f"the scorer setting {name!r} {why}")
    return _remote(given) if remote else _local(given)


def scorer_from_environment(variable: str = VARIABLE, **of_a_server: Any) -> Scorer:
    """The scorer whose settings are in the YAML file that an environment variable names.

    For frameworks that pass no settings to a reward function. It is made once per process, and again where the file
    has changed.

    Args:
        variable: the name of the variable.
        of_a_server: settings such as `retry_s` for a file that names a server and does not say them.

    Raises:
        ValueError: the variable is not set, or the file holds no settings as `scorer_from` takes them; names the file.
        OSError: the file cannot be read.
    """
    path = _named_file(variable)
    # By process: an encoder's threads do not live on in one that was forked.
    key = (os.getpid(), path, os.stat(path).st_mtime_ns, *sorted(of_a_server.items()))
    with _building:
        if key not in _built:
            given = settings_from_environment(variable)
            try:
                made = scorer_from({**of_a_server, **given} if given.get("url") is not None else given)
            except ValueError as error:
                raise ValueError(f"{path} ({variable}): {error}") from None
            _built.clear()
            _built[key] = made
        return _built[key]


def settings_from_environment(variable: str = VARIABLE) -> dict[str, Any]:
    """What the YAML file says that an environment variable names; None says nothing.

    Raises:
        ValueError: the variable is not set, or the file maps no names to values; names the file.
        OSError: the file cannot be read.
    """
    path = _named_file(variable)
    try:
        return {str(name): value for name, value in _read_yaml(path).items() if value is not None}
    except ValueError as error:
        raise ValueError(f"{path} ({variable}): {error}") from None


def log_row(batch: ScoreBatch, i: int) -> dict[str, float | str]:
    """Row i of a batch as a flat dictionary for logs, `ScoredRow.for_log`: the same keys for every row.

    Raises:
        ValueError: the batch has no such row.
    """
    if not 0 <= i < len(batch):
        raise ValueError(f"i must be a row of the batch, from 0 to {len(batch) - 1}, got {i}")
    return ScoredRow.of(batch, i).for_log()


def _remote(given: dict[str, Any]) -> RemoteScorer:
    file = given.pop("token_file", None)
    if file is not None:
        if "token" in given:
            raise ValueError("give token or token_file, not both")
        given["token"] = Path(file).read_text(encoding="utf-8").strip()
    return RemoteScorer(given.pop("url"), given.pop("token", None), **given)


def _local(given: dict[str, Any]) -> Scorer:
    preset, config = given.pop("preset", None), given.pop("config", None)
    if preset is not None and config is not None:
        raise ValueError("give config or preset, not both (config may hold `preset: NAME`)")
    if isinstance(config, str | os.PathLike):
        config = _read_yaml(os.fspath(config))
    if config is not None and not isinstance(config, Mapping):
        raise ValueError(f"config must map reward settings to values, or name a YAML file, got {config!r:.80}")
    chosen = RewardConfig.from_dict({"preset": "dpad" if preset is None else preset} if config is None else config)
    return ScorerSpec(chosen, **given).build()


def _named_file(variable: str) -> str:
    path = os.environ.get(variable)
    if not path:
        raise ValueError(
            f"{variable} is not set: let it name a YAML file of the scorer's settings, such as `url: ADDRESS` for "
            "`dpad-fast serve`, or `preset: dpad` and `encoder: NAME_OR_FOLDER`"
        )
    return os.path.abspath(path)


def _read_yaml(path: str) -> Mapping[str, Any]:
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(values, Mapping):
        raise ValueError(f"{path} must map names of settings to values, got {type(values).__name__}")
    return values


def _plain(value: Any) -> Any:
    """Dictionaries and lists in place of Hydra's own."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(inner) for inner in value]
    return value
