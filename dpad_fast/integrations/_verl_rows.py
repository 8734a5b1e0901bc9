"""One sample of verl's at a time, scored together with those that wait beside it."""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dpad_fast.integrations._row_reader import RowReader, SizeOf, as_it_is, asks_for_sizes
from dpad_fast.integrations._scorers import SETTINGS, VARIABLE, scorer_from, settings_from_environment
from dpad_fast.model_size import model_size_for, whole_size
from dpad_fast.rewards.micro_batcher import MicroBatcher
from dpad_fast.rewards.scored_row import ScoredRow
from dpad_fast.types import Size

OWN = ("columns", "window_ms", "max_batch", "unscored_reward", "max_failures", "model_sizes")
"""The settings that are not the scorer's."""

_MODEL_SIZES = ("processor", "picture")
_SIZES = ("min_pixels", "max_pixels", "size", "do_resize")
_log = logging.getLogger(__name__)


class VerlRows:
    """Scores samples that arrive one at a time.

    Args:
        settings: those of `scorer_from`, and `columns` (names for `Columns`), `window_ms`, `max_batch` (see
            `MicroBatcher`), `unscored_reward` (0.0), `max_failures` (64) and `model_sizes`: "processor", or "picture"
            where answers are in pixels of the picture as it is. Without a scorer's setting, they are read from the YAML
            file that DPAD_FAST_SCORER names; what is given here goes before it.
        processor: makes the policy's image processor, where it is needed; or None.
        sizes: settings for the processor that are given at each call (`data.mm_processor_kwargs`).

    Raises:
        ValueError: an unknown or bad setting, no device or threads where they must be said, or no processor where the
            size at which the model sees pictures is needed.
    """

    def __init__(
        self, settings: Mapping[str, Any], *, processor: Callable[[], Any] | None = None, sizes: Any = None
    ) -> None:
        settings = completed(settings)
        own = {name: settings[name] for name in OWN if name in settings}
        given = {name: value for name, value in settings.items() if name not in OWN}
        _check_names(given)
        self._unscored = _number(own, "unscored_reward", 0.0)
        self._most_failures = int(_number(own, "max_failures", 64, least=1))
        _check_worker(given)
        scorer = scorer_from(given)
        kind = own.get("model_sizes", "processor")
        if kind not in _MODEL_SIZES:
            raise ValueError(f"model_sizes must be one of {', '.join(_MODEL_SIZES)}, got {kind!r:.80}")
        size_of: SizeOf = as_it_is
        if kind == "processor" and asks_for_sizes(scorer.config):
            rule = ModelSize(None if processor is None else processor(), sizes)
            size_of = lambda size, shown: rule(size, _block(shown))  # noqa: E731
        self.columns = own.get("columns")
        self._reader = RowReader(scorer.config, columns=self.columns, size_of=size_of)
        self.config = scorer.config
        limits = {name: own[name] for name in ("window_ms", "max_batch") if name in own}
        self._batcher = MicroBatcher(scorer, **limits)
        self._failures = 0
        self._tally = _Tally()

    async def score(self, text: Any, row: Any, shown: Mapping[str, Any]) -> tuple[float, dict[str, Any]]:
        """The reward of one sample, and its columns for logs.

        Args:
            text: the completion.
            row: holds the ground truth, as `RowReader.read` takes it.
            shown: holds the picture, as `images_from` reads it.

        Returns:
            The total, or `unscored_reward` where the sample cannot be scored; and `ScoredRow.for_log`, with None in
            place of NaN, which verl's means leave out.

        Raises:
            ConnectionError: no server answered.
            RuntimeError: the scorer failed for `max_failures` samples in a row.
        """
        read = self._reader.read(row, 0, shown)
        found = await self._scored(text, read.target, None if read.bare else read.image, read.model_size)
        self._tally.add(found)
        reward = self._unscored if math.isnan(found.total) else found.total
        log = found.for_log()
        return reward, {name: None if value != value else value for name, value in log.items()}

    async def _scored(self, text: str, target: Any, image: Any, size: Any) -> ScoredRow:
        try:
            found = await self._batcher.score_one(text, target, image, None, size)
        except ConnectionError:
            raise  # nothing is known of the sample, and a reward of 0 would be learnt from
        except Exception as error:
            self._failures += 1
            if self._failures >= self._most_failures:
                raise RuntimeError(f"the scorer failed for {self._failures} samples in a row: {error}") from error
            nothing = dict.fromkeys(self.config.terms, math.nan)
            said = f"{type(error).__name__}: {error}"
            return ScoredRow(math.nan, nothing, {"roi": math.nan, "aoi": math.nan}, "scorer-failed", said[:500])
        self._failures = 0
        return found


class ModelSize:
    """The size at which a model in verl sees a picture: qwen-vl-utils resizes it, and then the processor.

    Args:
        processor: the policy's image processor.
        sizes: settings given to it at each call.

    Raises:
        ValueError: there is none, it is of no known family, or it would ignore a setting.
    """

    def __init__(self, processor: Any, sizes: Mapping[str, Any] | None = None) -> None:
        if processor is None:
            raise ValueError(
                "the size at which the policy sees pictures is not known, for it has no image processor here: give "
                "one, or model_sizes=picture where its answers are in pixels of the picture as it is"
            )
        inner = getattr(processor, "image_processor", None)
        self._processor = processor if inner is None else inner
        self._patch = getattr(self._processor, "patch_size", None) or 14
        sizes = dict(sizes or {})
        sizes |= dict(sizes.get("images_kwargs") or {})
        given = {name: sizes[name] for name in _SIZES if sizes.get(name) is not None}
        if ("min_pixels" in given) != ("max_pixels" in given):
            raise ValueError(
                f"data.mm_processor_kwargs has {'min' if 'min_pixels' in given else 'max'}_pixels alone, which the "
                "processor ignores in silence: give min_pixels and max_pixels"
            )
        if given:
            self._processor = {**self._processor.to_dict(), **given}
        model_size_for((112, 112), self._processor)  # an unknown family is refused now, not after the first generation

    def __call__(self, size: Size, block: Mapping[str, Any]) -> Size:
        """(width, height) that the model sees.

        Args:
            size: of the picture.
            block: the picture's content block, which may have `min_pixels`, `max_pixels`, `resized_height` and
                `resized_width`.

        Raises:
            ValueError: they refuse the picture.
        """
        from qwen_vl_utils import vision_process as rule

        factor = int(self._patch * rule.SPATIAL_MERGE_SIZE)
        width, height = size
        limits: dict[str, Any] = {}
        if "resized_height" in block and "resized_width" in block:
            height, width = block["resized_height"], block["resized_width"]
        else:
            limits = {name: block.get(name) for name in ("min_pixels", "max_pixels")}
        height, width = rule.smart_resize(height, width, factor=factor, **limits)
        fetched = whole_size((width, height), "size")
        return model_size_for(fetched, self._processor) or fetched


class _Tally:
    """Says in the log how many samples were unscored, when there is a new reason and each time the number doubles."""

    def __init__(self) -> None:
        self._count = 0
        self._reasons: Counter[str] = Counter()
        self._next = 1

    def add(self, row: ScoredRow) -> None:
        self._count += 1
        if row.error is None and not math.isnan(row.total):
            return
        reason = row.reason or "unknown"
        self._reasons[reason] += 1
        unscored = self._reasons.total()
        if self._reasons[reason] > 1 and unscored < self._next:
            return
        self._next = 2 * unscored
        counts = ", ".join(f"{name} {count}" for name, count in self._reasons.most_common())
        _log.warning("dpad: %d of %d samples unscored (%s); the last: %s", unscored, self._count, counts, row.error)


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings; where they say nothing of a scorer, with those of the file that DPAD_FAST_SCORER names.

    Raises:
        ValueError: there is no such file, or it holds no settings.
        OSError: it cannot be read.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if any(name not in OWN for name in given):
        return given
    read = settings_from_environment()
    _check_names(read, f"{os.environ[VARIABLE]} ({VARIABLE}): ")
    return {**read, **given}


def _check_names(settings: Iterable[str], where: str = "") -> None:
    known = [*OWN, *SETTINGS]
    for name in settings:
        if name not in known:
            raise ValueError(f"{where}unknown setting {name!r:.80}; known settings: {', '.join(known)}")


def scorer_settings(given: Any) -> dict[str, Any]:
    """The settings of `VerlRows` from what a configuration holds; empty where it holds none.

    Raises:
        ValueError: it holds something else than a mapping.
    """
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(f"reward.reward_kwargs must map names to values, got {given!r:.80}")
    return {str(name): value for name, value in (given or {}).items() if value is not None}


def _block(shown: Mapping[str, Any]) -> Mapping[str, Any]:
    """The content block of the only picture of a chat; empty where it came otherwise."""
    for message in shown.get("raw_prompt", ()):
        content = message.get("content") if isinstance(message, Mapping) else None
        for block in () if content is None or isinstance(content, str) else content:
            if isinstance(block, Mapping) and block.get("type") == "image":
                return block
    return {}


def _check_worker(given: Mapping[str, Any]) -> None:
    """A scorer in a reward worker: Ray leaves it one thread and no GPU, which would go unnoticed."""
    if given.get("encoder") is None or given.get("url") is not None:
        return
    device = str(given.get("device") or "cpu")
    if device.startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            raise ValueError(
                f"device is {device!r}, but this worker sees no GPU (Ray gives reward workers none): start `dpad-fast "
                "serve --device cuda:0` beside the training and set url=ADDRESS, or score on the CPU with threads=N"
            )
    elif given.get("threads") is None and os.environ.get("OMP_NUM_THREADS") == "1":
        raise ValueError(
            "threads is missing: Ray starts workers with OMP_NUM_THREADS=1, so that the encoder would have one thread. "
            "Set threads=N, the number of cores that scoring may use"
        )


def _number(given: Mapping[str, Any], name: str, default: float, least: float = -1e30) -> float:
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= 1e30:
        raise ValueError(f"{name} must be a number of at least {least:g}, got {value!r:.80}")
    return float(value)
