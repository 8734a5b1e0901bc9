"""The size at which a model sees a picture, in whose pixels it answers. Needs neither transformers nor torch.

Qwen2-VL, Qwen2.5-VL and Qwen3-VL bring each side to a multiple of one merged patch (28 pixels; 32 for Qwen3-VL) and the
area between two limits. Trainers pass the original picture to reward functions, so the rule is needed outside a model.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, TypeAlias

from dpad_fast._native.gpu_errors import raise_gpu_failure

Size: TypeAlias = tuple[int, int]

_WHOLE_PATCHES = re.compile(r"Qwen\d(_\d)?_?VLImageProcessor")
# These cut a picture into tiles or squash it onto one square: no resized picture has pixels that an answer could be in.
_KEEP_ORIGINAL = re.compile("InternVL|GotOcr2|Idefics3|SmolVLM|LlavaNext|LlavaOnevision|Gemma3")
LARGEST_SIDE = (1 << 31) - 1  # what a picture's formats and torch can count
_LONGEST = 200  # sides per side; the processors refuse thinner pictures


@dataclass(frozen=True)
class WholePatches:
    """The rule of the Qwen-VL families.

    Attributes:
        step: each side is a multiple of this many pixels.
        least: the area is at least this many pixels.
        most: the area is at most this many pixels, where both sides can be one step or more.
    """

    step: int = 28
    least: int = 56 * 56
    most: int = 28 * 28 * 1280

    def resized(self, size: Size) -> Size:
        """(width, height) after resizing; a `ValueError` for a side more than 200 times the other."""
        width, height = size
        if max(size) > _LONGEST * min(size):
            raise ValueError(f"size is {width}x{height}: the processor refuses a side over {_LONGEST} times the other")
        steps = [round(side / self.step) for side in size]
        area = steps[0] * steps[1] * self.step**2
        # The order of the operations is the processors': another one rounds differently where a side just fits.
        if area > self.most:
            shrink = math.sqrt(width * height / self.most)
            steps = [max(1, math.floor(side / shrink / self.step)) for side in size]
        elif area < self.least:
            grow = math.sqrt(self.least / (width * height))
            steps = [math.ceil(side * grow / self.step) for side in size]
        return steps[0] * self.step, steps[1] * self.step


def model_size_for(size: Sequence[int], processor: Any) -> Size | None:
    """The size at which a model sees a picture.

    Args:
        size: (width, height) of the picture, in whole pixels.
        processor: the model's processor or image processor, of any release of transformers, or the settings that one
            saves (`preprocessor_config.json` as a dictionary; `{"patch_size", "merge_size", "min_pixels",
            "max_pixels"}` will do). A setting that is given at each call (`images_kwargs`) cannot be known here.

    Returns:
        (width, height) for the Qwen2-VL, Qwen2.5-VL and Qwen3-VL families. None for families whose answers are not in
        pixels of a resized picture (InternVL, Idefics3, SmolVLM, LLaVA-NeXT, LLaVA-OneVision, Gemma 3): their answers
        in pixels refer to the original.

    Raises:
        ValueError: `size` is no size or the processor refuses it, or the processor is of no known family; the message
            says what to pass instead.
    """
    given = whole_size(size, "size")
    inner = _get(processor, "image_processor")
    names = [name for part in (processor, inner) for name in _names(part)]
    settings = processor if inner is None else inner
    if any(_WHOLE_PATCHES.match(name) for name in names) or _is_complete(settings):
        return given if _get(settings, "do_resize") is False else _rule(settings).resized(given)
    if any(_KEEP_ORIGINAL.match(name) for name in names):
        return None
    raise ValueError(
        f"processor is {_shown(processor)}, whose rule for the size of pictures is not known here. Known: Qwen2-VL, "
        "Qwen2.5-VL and Qwen3-VL. Pass its image processor, a dictionary with patch_size, merge_size, min_pixels and "
        "max_pixels if it resizes as these do, or give the reward the sizes yourself (model_sizes, or a function of "
        "(width, height))"
    )


def whole_size(size: Any, name: str) -> Size:
    """Reads (width, height) from a pair of whole numbers of any type (Python, NumPy, torch).

    Raises:
        ValueError: anything else, or a side below 1 or above `LARGEST_SIDE`; begins with `name`.
    """
    if type(size) is tuple and len(size) == 2 and type(size[0]) is type(size[1]) is int:
        width, height = size
        if 1 <= width <= LARGEST_SIDE and 1 <= height <= LARGEST_SIDE:
            return width, height
    try:
        if isinstance(size, str | bytes | bytearray | memoryview | Mapping | Set):
            raise TypeError("no pair")  # of which characters, bytes or what has no order would be read
        width, height = map(_as_int, size.tolist() if hasattr(size, "tolist") else size)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise_gpu_failure(error)
        raise ValueError(f"{name} must be (width, height) in whole pixels, got {_short(size)}") from None
    if width < 1 or height < 1:
        raise ValueError(f"{name} must be (width, height) in whole pixels, got {_short(size)}")
    if max(width, height) > LARGEST_SIDE:
        raise ValueError(f"{name} must be (width, height) of at most {LARGEST_SIDE} pixels, got {_short(size)}")
    return width, height


def _as_int(value: Any) -> int:
    if hasattr(value, "item"):  # NumPy's booleans and torch's tensors turn into numbers too willingly
        value = value.item()
    if isinstance(value, bool | str):
        raise TypeError("no number")
    try:
        return operator.index(value)
    except TypeError:
        number = float(value)
    if not number.is_integer():
        raise ValueError("no whole number")
    return int(number)


def _rule(settings: Any) -> WholePatches:
    """Reads the rule: `size` holds the limits in newer releases, `min_pixels` and `max_pixels` in older ones."""
    size = _get(settings, "size")
    limits = {}
    for which, edge, bound in (("least", "shortest_edge", "min_pixels"), ("most", "longest_edge", "max_pixels")):
        found = [_get(size, edge), _get(size, bound), _get(settings, bound)]
        # In a saved file the separate setting has precedence, as it has where the file is loaded.
        if isinstance(settings, Mapping):
            found.reverse()
        value = next((value for value in found if value is not None), getattr(WholePatches, which))
        limits[which] = _positive(value, bound)
    patch, merge = _get(settings, "patch_size"), _get(settings, "merge_size")
    patch = _positive(14 if patch is None else patch, "patch_size")
    return WholePatches(patch * _positive(2 if merge is None else merge, "merge_size"), **limits)


def _positive(value: Any, name: str) -> int:
    try:
        number = _as_int(value)
    except (TypeError, ValueError, OverflowError):
        number = 0
    if number < 1:
        raise ValueError(f"processor: {name} must be a positive whole number, got {_short(value)}")
    return number


def _is_complete(settings: Any) -> bool:
    """Whether a dictionary without a class name says the whole rule."""
    if not isinstance(settings, Mapping) or _names(settings):
        return False
    return all(settings.get(name) is not None for name in ("patch_size", "merge_size", "min_pixels", "max_pixels"))


def _names(part: Any) -> list[str]:
    if part is None:
        return []
    if isinstance(part, Mapping):
        found = [part.get(key) for key in ("image_processor_type", "processor_class", "feature_extractor_type")]
        return [name for name in found if isinstance(name, str)]
    return [kind.__name__ for kind in type(part).__mro__[:-1]]


def _get(part: Any, name: str) -> Any:
    return part.get(name) if isinstance(part, Mapping) else getattr(part, name, None)


def _shown(processor: Any) -> str:
    if isinstance(processor, Mapping):
        return f"a dictionary with {', '.join(map(str, list(processor)[:8])) or 'nothing'}"
    return f"a {type(processor).__name__}"


def _short(value: object) -> str:
    try:
        shown = repr(value)
    except ValueError:  # Python spells no number of more than 4300 digits
        return "a number of thousands of digits"
    return shown if len(shown) <= 80 else shown[:80] + "..."
