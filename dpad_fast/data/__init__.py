"""Data sets: ReasonSeg folders, rows, the released form and the shapes world, each module loaded when first used."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpad_fast.data import reasonseg, released, rows, shapes

__all__ = ["reasonseg", "released", "rows", "shapes"]


def __getattr__(name: str) -> Any:
    """Import a submodule on first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
