"""A user's own segmenter, named MODULE:FUNCTION; what it returns is checked."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from dpad_fast.types import BoolMask, Completion, Size


class Plugin:
    """A segmenter that calls a user's function with (answers, images, sizes).

    Args:
        name: MODULE:FUNCTION. FUNCTION may also be an object with a method `segment`.

    Raises:
        ValueError: it cannot be imported, or does not take three arguments.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        module, _, function = name.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in function.split("."):
                found = getattr(found, part)
        except Exception as error:  # the user's module may fail in any way
            raise ValueError(f"segmenter {name!r:.80} cannot be imported: {error or type(error).__name__}") from error
        self._function = getattr(found, "segment", found)
        if not callable(self._function):
            raise ValueError(f"segmenter {name!r:.80} is a {type(found).__name__}, which cannot be called")
        try:
            inspect.signature(self._function).bind([], [], [])
        except TypeError as error:
            raise ValueError(
                f"segmenter {name!r:.80} must take (answers, images, sizes), three lists of one length: {error}"
            ) from None
        except ValueError:  # built-in functions have no signature to look at
            pass

    def __reduce__(self) -> Any:
        return type(self), (self.name,)

    def segment(
        self, answers: Sequence[Completion], images: Sequence[Any], sizes: Sequence[Size]
    ) -> list[BoolMask | None]:
        """See `Segmenter.segment`.

        Raises:
            ValueError: the function did not return one mask or None per answer; names the index and what came.
        """
        try:
            found = self._function(list(answers), list(images), list(sizes))
        except Exception as error:  # the user's code may fail in any way
            raise ValueError(f"segmenter {self.name!r:.80} failed: {type(error).__name__}: {error}") from error
        if isinstance(found, str | bytes) or not hasattr(found, "__len__") or len(found) != len(answers):
            count = f"{len(found)} entries" if hasattr(found, "__len__") else f"a {type(found).__name__}"
            raise ValueError(f"segmenter {self.name!r:.80} returned {count} for {len(answers)} answers")
        return [self._mask(mask, size, i) for i, (mask, size) in enumerate(zip(found, sizes, strict=True))]

    def _mask(self, mask: Any, size: Size, i: int) -> BoolMask | None:
        if mask is None:
            return None
        try:
            values = mask.detach().cpu().numpy() if hasattr(mask, "detach") else np.asarray(mask)
        except (ValueError, TypeError) as error:
            raise ValueError(f"segmenter {self.name!r:.80}: masks[{i}] cannot be read as an array: {error}") from None
        if values.shape != (size[1], size[0]):
            raise ValueError(
                f"segmenter {self.name!r:.80}: masks[{i}] has shape {values.shape}, expected (height, width) = "
                f"{(size[1], size[0])}"
            )
        if values.dtype != np.bool_ and not (values.dtype.kind in "iu" and bool(((values == 0) | (values == 1)).all())):
            raise ValueError(
                f"segmenter {self.name!r:.80}: masks[{i}] must hold booleans or 0 and 1, got {values.dtype}"
            )
        return np.asarray(values, dtype=np.bool_)
