"""Data sets in the forms that the field uses, and the shapes world; each module is loaded when first used."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpad_fast.data import (
        check,
        coco,
        coordinates,
        forms,
        grandf,
        prepare,
        reasonseg,
        refcoco,
        released,
        rows,
        shapes,
    )
    from dpad_fast.data.forms import load

__all__ = [
    "check",
    "coco",
    "coordinates",
    "forms",
    "grandf",
    "load",
    "prepare",
    "reasonseg",
    "refcoco",
    "released",
    "rows",
    "shapes",
]


def __getattr__(name: str) -> Any:
    """Import a submodule, or the function that reads every form, on first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "load":
        return importlib.import_module(f"{__name__}.forms").load
    return importlib.import_module(f"{__name__}.{name}")
