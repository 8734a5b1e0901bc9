"""The encoders and warm starts that arms need and the package does not ship, made once; and the audit of encoders.

Of NAME the marker is `OUT/makes/NAME/made.json`, written last, and the checkpoint `OUT/checkpoints/NAME`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dpad_fast.checkpoints import ENCODERS, checkpoint
from dpad_fast.train.resume import read_json, write_json

Tell = Callable[[int, int, dict[str, float]], None]


def marker(out: Path, name: str) -> Path:
    """Where it is said that a checkpoint of `out` is whole.

    Args:
        out: folder of all ablations.
        name: of the checkpoint.

    Returns:
        A file's path.
    """
    return out / "makes" / name / "made.json"


def recipe(name: str) -> str:
    """Names all that a checkpoint depends on.

    Args:
        name: a shipped encoder (which is only measured), or what `data shapes --rebuild` makes for the ablations.

    Returns:
        A text that changes with every setting.

    Raises:
        ValueError: nothing of that name is made.
    """
    from dpad_fast.data.shapes_text import MIXTURES
    from dpad_fast.train.warm_start import rebuild

    if name in ENCODERS:
        return "shipped"
    if name in rebuild.ENCODERS:
        return repr(rebuild.ENCODERS[name])
    for lesson in rebuild.VARIANTS:
        if lesson.name == name:
            return f"{lesson} {MIXTURES[lesson.mixture]}"
    raise ValueError(f"checkpoint {name!r:.80} is neither shipped nor made by `dpad-fast data shapes --rebuild`")


def kept(place: Path) -> dict[str, Any] | None:
    """What an earlier call left, if it is whole and by today's recipe.

    Args:
        place: a marker.

    Returns:
        {"mark", "rates"}; `rates` is P(S1 > S2) by what a description says for an encoder, and None for a policy.
    """
    name = place.parent.name
    there = read_json(place) if place.is_file() else None
    if not isinstance(there, dict) or there.get("mark") != recipe(name) or "rates" not in there:
        return None
    whole = name in ENCODERS or (_product(place) / "config.json").is_file()
    return there if whole else None


def make(place: Path, tell: Tell) -> None:
    """Make a checkpoint, or measure a shipped encoder; half-made ones of a call that was killed are thrown away.

    Args:
        place: its marker.
        tell: called with (step, steps, losses).
    """
    from dpad_fast.train.warm_start import rebuild, small_clip

    name, product = place.parent.name, _product(place)
    rates = None
    if name in ENCODERS:
        from transformers import AutoModel

        rates = small_clip.held_out(AutoModel.from_pretrained(checkpoint(name)).float().eval())
    else:
        unfinished = place.parent / "unfinished"
        for folder in (unfinished, product):
            shutil.rmtree(folder, ignore_errors=True)
        if name in rebuild.ENCODERS:
            rates = rebuild.make_encoder(unfinished, name, tell)
        else:
            lesson = next(lesson for lesson in rebuild.VARIANTS if lesson.name == name)
            rebuild.make_policy(unfinished, lesson, tell)
        product.parent.mkdir(parents=True, exist_ok=True)
        os.replace(unfinished / name, product)
        unfinished.rmdir()
    write_json(place, {"mark": recipe(name), "rates": rates})


def _product(place: Path) -> Path:
    return place.parents[2] / "checkpoints" / place.parent.name
