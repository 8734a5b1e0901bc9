"""What the report draws: pictures made small, and the curves of training as numbers."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from dpad_fast.clip.images import find_pictures
from dpad_fast.evaluate.measure import METRICS
from dpad_fast.evaluate.results import number
from dpad_fast.pictures import decoding, open_picture, upright, upright_size
from dpad_fast.types import ImageLike, Size

CURVES = {
    "completions/mean_length": "tokens per completion",
    "dpad/s1_over_s2": "rate of S1 > S2",
    "rewards/iou/mean": "rate of IoU > 0.5",
    "kl": "KL from the warm start",
    "reward": "reward",
    "frac_reward_zero_std": "share of groups without variance",
    "entropy": "entropy",
}
"""Curves by their key in the log; other `rewards/NAME/mean` are drawn too."""

Histories = Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]


def thumbnail(image: ImageLike, side: int) -> tuple[Size, str]:
    """A picture made small.

    Args:
        image: anything that the scorer takes as an image; it is turned as its EXIF says.
        side: the longest side in pixels; smaller pictures are kept as they are.

    Returns:
        (width, height) of the picture, and it as a WebP data URI.

    Raises:
        ValueError: it cannot be read.
    """
    whole, size = _opened(image, side)
    small = whole.copy()
    small.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    buffer = io.BytesIO()
    small.save(buffer, format="WEBP", quality=72, method=2)
    return size, "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _opened(image: ImageLike, side: int) -> tuple[Image.Image, Size]:
    """A picture, upright, and its size; of a large JPEG file only as much is decoded as `side` needs."""
    if not isinstance(image, str | os.PathLike):
        pixels = Image.fromarray(find_pictures([image], None)[0][0].pixels().numpy())
        return pixels, pixels.size
    path = os.fspath(image)
    with open_picture(path, path) as opened, decoding(path):
        size = upright_size(opened)
        opened.draft("RGB", (2 * side, 2 * side))
        return upright(opened).convert("RGB"), size


def curve_panels(arms: Histories, window: int = 5) -> list[dict[str, Any]]:
    """The training curves of several arms, a panel per quantity.

    Args:
        arms: histories by arm, one per seed; each history is a list of log lines with "step".
        window: steps of the running mean that is drawn strong over the faint raw values.

    Returns:
        {"key", "title", "steps": [S], "lines": [{"name", "arm", "of", "values": [S], "mean": [S]}]} each, where `of` is
        the arm's name and `arm` its number; None where an arm has no value; nothing for quantities that no arm has.
    """
    return [panel for key, title in _curves(arms).items() if (panel := _panel(arms, key, title, window))["lines"]]


def held_out_panels(runs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What was measured on held-out samples before, during and after training, a panel per metric.

    Args:
        runs: contents of runs by name; without "during" there is no curve of a run.

    Returns:
        See `curve_panels`; nothing is averaged.
    """
    arms = {name: [_measurements(content)] if content.get("during") else [] for name, content in runs.items()}
    panels = (_panel(arms, key, metric.label, window=1) for key, metric in METRICS.items())
    return [panel for panel in panels if panel["lines"]]


def _measurements(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Metrics by step, those of the untrained policy as step 0 and those of the trained one as the last."""
    last = max((step for line in content["history"] if (step := number(line.get("step"))) is not None), default=0.0)
    found = [(0.0, content["before"]), *((one["step"], one["metrics"]) for one in content["during"])]
    found += [(last, content["after"])] if content["after"] else []
    return [{"step": step, **{key: one.get("value") for key, one in metrics.items()}} for step, metrics in found]


def _curves(arms: Histories) -> dict[str, str]:
    logged = {key for runs in arms.values() for run in runs for line in run for key in line}
    rewards = sorted(key for key in logged if key.startswith("rewards/") and key.endswith("/mean"))
    found = {key: title for key, title in CURVES.items() if key in logged}
    return found | {key: f"mean of {key.split('/')[1]}" for key in rewards if key not in CURVES}


def _panel(arms: Histories, key: str, title: str, window: int) -> dict[str, Any]:
    found = []
    for arm, (name, runs) in enumerate(arms.items()):
        for seed, run in enumerate(runs):
            values = _values(run, key)
            if values:
                found.append((f"{name}, seed {seed}" if len(runs) > 1 else name, (arm, name), values))
    steps = sorted({step for _, _, values in found for step in values})
    lines = [
        {
            "name": name,
            "arm": arm,
            "of": of,
            "values": [values.get(step) for step in steps],
            "mean": _along(steps, _running_mean(values, window)),
        }
        for name, (arm, of), values in found
    ]
    return {"key": key, "title": title, "steps": steps, "lines": lines}


def _values(run: Sequence[Mapping[str, Any]], key: str) -> dict[float, float]:
    """Value by step; what is no number is left out."""
    pairs = [(number(line.get("step")), number(line.get(key))) for line in run]
    return {step: round(value, 6) for step, value in pairs if step is not None and value is not None}


def _running_mean(values: Mapping[float, float], window: int) -> dict[float, float]:
    steps = sorted(values)
    means = {}
    for i, step in enumerate(steps):
        near = steps[max(0, i - window + 1) : i + 1]
        means[step] = round(sum(values[s] for s in near) / len(near), 6)
    return means


def _along(steps: Sequence[float], values: Mapping[float, float]) -> list[float | None]:
    return [values.get(step) for step in steps]
