"""`make_segmenter`: a segmenter by its name."""

from __future__ import annotations

import os
import re
from typing import Any

from dpad_fast.segmenters.drawn import Drawn, from_background, from_box, from_polygon
from dpad_fast.segmenters.plugin import Plugin
from dpad_fast.segmenters.prompts import Segmenter

_DRAWN = {"box": from_box, "polygon": from_polygon, "background": from_background}
_SAM = {"sam2": "facebook/sam2-hiera-large", "sam3": "facebook/sam3"}
SEGMENTERS = (*_DRAWN, *_SAM)
"""The names. A hub name or a folder may follow `sam2:` and `sam3:`. MODULE:FUNCTION is a function of yours."""

_PLACE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def make_segmenter(name: str, **settings: Any) -> Segmenter:
    """A segmenter by its name.

    Args:
        name: "box", "polygon" (a box where there is none), "background" (pictures of the shapes world), "sam2" or
            "sam3" (`facebook/sam2-hiera-large`, `facebook/sam3`), "sam2:NAME_OR_FOLDER" for any SAM 2, SAM 2.1 or
            SAM 3 in transformers' form, or MODULE:FUNCTION.
        settings: for `SamSegmenter.load` (device, dtype, batch, cache); other segmenters ignore them.

    Raises:
        ValueError: no such segmenter, a model that cannot be loaded, or a function that cannot be imported.
    """
    check_name(name)
    if name in _DRAWN:
        return Drawn(_DRAWN[name])
    kind, _, source = name.partition(":")
    if kind not in _SAM:
        return Plugin(name)
    from dpad_fast.segmenters.sam import SamSegmenter

    return SamSegmenter.load(source or _SAM[kind], **settings)


def check_name(name: str) -> None:
    """Checks a segmenter's name, without loading or importing anything.

    Args:
        name: see `make_segmenter`.

    Raises:
        ValueError: there is no such segmenter; lists the known names.
    """
    if not isinstance(name, str):
        raise ValueError(f"segmenter must be a name, got {type(name).__name__}")
    kind, colon, source = name.partition(":")
    if kind in _SAM and colon and not source:
        raise ValueError(f"segmenter is {name!r}: a name or a folder is missing behind the colon")
    if name not in _DRAWN and kind not in _SAM and not _PLACE.fullmatch(name):
        known = ", ".join(SEGMENTERS)
        raise ValueError(f"segmenter is {name!r:.80}; known: {known}, sam2:NAME_OR_FOLDER, or your own MODULE:FUNCTION")


def absolute(name: str) -> str:
    """The name for a process with another working directory: the path of an existing folder is made absolute."""
    kind, _, source = name.partition(":")
    return f"{kind}:{os.path.abspath(source)}" if kind in _SAM and source and os.path.isdir(source) else name
