"""The encoder that a command names, and a word of warning where it cannot judge the pictures."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from dpad_fast.terminal import say

if TYPE_CHECKING:
    from dpad_fast.clip import ClipEncoder
    from dpad_fast.evaluate.records import Item
    from dpad_fast.types import Sample

SHAPES_NOTE = (
    "note: the built-in encoder knows pictures of coloured shapes and seventy words. On photographs its S1, S2 and "
    "dpad try out the command and judge nothing; every other term is what it is with any encoder."
)


def load(name: str, samples: Iterable[Sample], *, quiet: bool, **settings: Any) -> ClipEncoder:
    """Load an encoder for some samples.

    Args:
        name: a folder, a name on the hub, or a shipped one (`shapes`, and `clip` as training calls it).
        samples: what it will see.
        quiet: no note on photographs.
        settings: of `load_encoder`.

    Returns:
        The encoder.

    Raises:
        ValueError: it cannot be loaded.
    """
    from dpad_fast.checkpoints import SMALL_CLIP, is_small_clip
    from dpad_fast.clip import load_encoder
    from dpad_fast.train.policy import quiet as without_bars

    built_in = is_small_clip(name)
    with without_bars():
        encoder = load_encoder(SMALL_CLIP if built_in else name, **settings)
    warn(name, samples, quiet=quiet)
    return encoder


def warn(name: str, samples: Iterable[Sample], *, quiet: bool) -> None:
    """Say so where the built-in encoder is to judge photographs.

    Args:
        name: as `load` takes it.
        samples: what it will see.
        quiet: say nothing.
    """
    from dpad_fast.checkpoints import small_encoder

    if small_encoder(name) is not None and _photographs(samples):
        say(SHAPES_NOTE, quiet=quiet, file=sys.stderr)


def warned(name: str, items: Iterator[Item], *, quiet: bool) -> Iterator[Item]:
    """The same items; a word where the encoder cannot judge the first one's picture.

    Args:
        name: as `load` takes it.
        items: of `dpad_fast.evaluate.predictions.items`.
        quiet: say nothing.
    """
    from dpad_fast.evaluate.records import case_of

    first = next(items, None)
    if first is not None:
        with contextlib.suppress(ValueError):  # whoever measures it says what is wrong
            warn(name, [case_of(first).sample], quiet=quiet)
        yield first
    yield from items


def _photographs(samples: Iterable[Sample]) -> bool:
    from dpad_fast.data.shapes import SIDE

    return any(sample.target.image_size != (SIDE, SIDE) for sample in samples)
