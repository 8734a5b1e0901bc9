"""The settings E, F and J of the demo: which policy, which arms, and what to say about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dpad_fast.train.config import TrainConfig, from_dict

GEOMETRY, DPAD, ANY_OBJECT = "geometry only", "with R_dpad", "any object"

_COMMON: dict[str, Any] = {
    "encoder": "clip",
    "steps": 60,
    "save_every": 10,
    "rewards": {"preset": "dpad", "point_threshold": 13.3, "box_l1_threshold": 7.5},
    "data": {"kind": "shapes", "seed": 1},
    "grpo": {
        "queries": 8,
        "generations": 8,
        "completion_tokens": 100,
        "temperature": 1.0,
        "learning_rate": 1e-4,
        "beta": 0.02,
        "loss": "grpo",
        "freeze_vision": True,
    },
    "evaluation": {"scenes": 256},
}
_NO_DPAD = {"rewards": {"weights": {"discriminative": 0.0}}}
_J_TERMS = {"rewards": {"terms": ["think_format", "answer_format", "iou", "box_l1", "discriminative"]}}


@dataclass(frozen=True)
class Setting:
    """One comparison of the demo.

    Attributes:
        key: E, F or J.
        title: one line.
        preface: what a reader must know before the numbers.
        changes: to the common configuration.
        arms: changes of each arm, by its name; the first is the baseline.
        metrics: keys of the table, in order.
    """

    key: str
    title: str
    preface: tuple[str, ...]
    changes: Mapping[str, Any]
    arms: Mapping[str, Mapping[str, Any]]
    metrics: tuple[str, ...]

    def config(self, arm: str, seed: int, out: str, changes: Mapping[str, Any] | None = None) -> TrainConfig:
        """The training run of one arm and seed.

        Args:
            arm: a key of `arms`.
            seed: of prompts and sampling; the same seed gives every arm the same prompts in the same order.
            out: the run's folder.
            changes: further changes, of the command line.

        Returns:
            The configuration.
        """
        values: dict[str, Any] = {}
        own = {"name": f"{self.key} {arm}", "seed": seed, "out": out}
        for part in (_COMMON, self.changes, self.arms[arm], changes or {}, own):
            values = merged(values, part)
        return from_dict(values)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries, the second over the first; neither is changed."""
    result = dict(base)
    for key, value in changes.items():
        inner = result.get(key)
        result[key] = merged(inner, value) if isinstance(value, Mapping) and isinstance(inner, Mapping) else value
    return result


_PAIRED = "Both arms see the same prompts in the same order. They differ in one thing: R_dpad has weight 1 or 0."

SETTINGS: dict[str, Setting] = {
    "E": Setting(
        key="E",
        title="Setting E: focus and description go together",
        preface=(
            "The warm start of E was taught a correlation: a focused chain is followed by a description that singles "
            "the target out with probability 0.8, a divergent one with 0.3. It is built in, and the audit shows it.",
            "So shorter chains under R_dpad are what this setting is made to allow; F, where there is no such "
            "correlation, is its control.",
            _PAIRED,
        ),
        changes={"policy": "policy-e"},
        arms={GEOMETRY: _NO_DPAD, DPAD: {}},
        metrics=("chain_tokens", "giou", "ciou", "s1_wins", "format", "focused"),
    ),
    "F": Setting(
        key="F",
        title="Setting F: the control of E, no correlation",
        preface=(
            "As E, but a description singles the target out with probability 0.5 whatever the chain. R_dpad has "
            "nothing to gain from shorter chains here.",
            _PAIRED,
        ),
        changes={"policy": "policy-f"},
        arms={GEOMETRY: _NO_DPAD, DPAD: {}},
        metrics=("chain_tokens", "giou", "ciou", "s1_wins", "format", "focused"),
    ),
    "J": Setting(
        key="J",
        title="Setting J: half of the conclusions are wrong, and boxes are jittered",
        preface=(
            "The warm start of J is about the wrong shape half of the time, and its boxes are off by up to 21 pixels "
            "a side, so that geometry rewards are rare even for the right shape, while R_dpad is not.",
            "The third arm is a control: in R_dpad's place a bonus for naming any one shape of the scene. If it did as "
            "well, the target's identity would not be what helps.",
            "All arms see the same prompts in the same order.",
        ),
        changes={"policy": "policy-j", "steps": 80, "evaluation": {"scenes": 512}, **_J_TERMS},
        arms={GEOMETRY: _NO_DPAD, DPAD: {}, ANY_OBJECT: {**_NO_DPAD, "extra_rewards": ["names_any_object"]}},
        metrics=("right", "giou", "ciou", "s1_wins", "chain_tokens", "format"),
    ),
}


def chosen(text: str) -> list[Setting]:
    """The settings that `--setting` names.

    Args:
        text: E, F, J or all, in any case.

    Returns:
        The settings, in order.

    Raises:
        ValueError: for another name.
    """
    if text.lower() == "all":
        return list(SETTINGS.values())
    if text.upper() not in SETTINGS:
        raise ValueError(f"--setting {text!r:.80} is unknown; known: {', '.join(SETTINGS)}, all")
    return [SETTINGS[text.upper()]]
