"""EasyR1 (0.3): its batch reward function, and a manager for those who want the pictures that the batch holds.

    worker:
      reward:
        reward_function: /path/to/dpad_fast/integrations/easyr1.py:compute_score
        reward_function_kwargs: {url: "http://127.0.0.1:8421", processor: Qwen/Qwen2.5-VL-3B-Instruct}

EasyR1 hands a reward function no picture: the ground truth (its `answer_key`) says where it is, as
`{"solution": "<box>..</box>..", "image": "train/0001.jpg"}` or the JSON text of it. `DpadRewardManager` stands in the
place of `AutoRewardManager`, by one changed import in verl/trainer/main.py, and finds the pictures in the batch.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from dpad_fast.integrations._responses import at_last_token, decoded
from dpad_fast.integrations._row_reader import row_of
from dpad_fast.integrations._rows import Recipe, lowest, numbers_of, totals
from dpad_fast.model_size import model_size_for
from dpad_fast.row_images import COLUMNS, images_from, size_of
from dpad_fast.serve.responses import without_end
from dpad_fast.types import Size

__all__ = ["REWARD_NAME", "REWARD_TYPE", "DpadRewardManager", "compute_score", "seen_size"]

REWARD_NAME = "dpad"
REWARD_TYPE = "batch"

_recipes: dict[str, Recipe] = {}


def compute_score(reward_inputs: Sequence[Mapping[str, Any]], **settings: Any) -> list[dict[str, float]]:
    """The rewards of a batch.

    Args:
        reward_inputs: N of {"response", "response_length", "ground_truth"}.
        settings: `reward_function_kwargs`: of the scorer (`url`, or `preset`, `encoder`, `device`, ...; without any of
            these they are read from the file that DPAD_FAST_SCORER names) and of rows (`columns`, `image`,
            `image_root`, `processor`).

    Returns:
        N dictionaries with the same keys: "overall", every term, "s1_over_s2", "malformed" and "unscored" (0 or 1). A
        row that cannot be scored has the lowest reward.

    Raises:
        ValueError: an unknown setting; names the known ones.
    """
    rows = [row_of(given["ground_truth"]) for given in reward_inputs]
    return _scores(_recipe(settings), [given["response"] for given in reward_inputs], rows)


class DpadRewardManager:
    """`AutoRewardManager`, with pictures.

    Args:
        config: EasyR1's `worker.reward`: `reward_function_kwargs` are the settings of `compute_score`, and
            `min_pixels` and `max_pixels`, which must be those of `data`; `reward_function` is not read.
        tokenizer: the policy's.

    Raises:
        ValueError: an unknown setting; names the known ones.
    """

    def __init__(self, config: Any, tokenizer: Any) -> None:
        self.config, self.tokenizer = config, tokenizer
        settings = dict(config.reward_function_kwargs)
        self._limits = settings.pop("min_pixels", None), settings.pop("max_pixels", None)
        self._processor = settings.pop("processor", None)
        self._recipe = _recipe(settings)

    def compute_reward(self, data: Any) -> tuple[torch.Tensor, dict[str, list[float]]]:
        """The rewards of a `DataProto`: float32 [N, T], each at its response's last token, and N numbers per name."""
        responses = data.batch["responses"]
        lengths = [int(length) for length in data.batch["response_mask"].sum(-1)]
        texts = decoded(self.tokenizer, responses, lengths, skip_special_tokens=self.config.skip_special_tokens)
        truths = data.non_tensor_batch["ground_truth"]
        shown = data.non_tensor_batch.get("multi_modal_data", [None] * len(truths))
        scores = _scores(self._recipe, texts, [self._row(*pair) for pair in zip(truths, shown, strict=True)])
        metrics: dict[str, list[float]] = defaultdict(list)
        for score in scores:
            for name, value in score.items():
                metrics[name].append(value)
        return at_last_token([score["overall"] for score in scores], responses, lengths), metrics

    def _row(self, truth: Any, shown: Any) -> Mapping[str, Any] | ValueError:
        """The ground truth with the batch's picture, unless it names one itself, and the size that the model saw."""
        row = row_of(truth)
        if isinstance(row, ValueError):
            return row
        row = dict(row)
        if shown is not None and not any(row.get(name) is not None for name in COLUMNS):
            row["multi_modal_data"] = shown
        if self._processor is None or row.get("model_size") is not None:
            return row
        try:
            pictures = images_from(row)
            if len(pictures) == 1:
                size = size_of(pictures[0], "the picture")
                row["model_size"] = seen_size(size, *self._limits, processor=self._loaded())
        except ValueError:
            pass  # the same picture is looked at again, and named, where the row is read
        return row

    def _loaded(self) -> Any:
        if isinstance(self._processor, str):
            from transformers import AutoProcessor

            self._processor = AutoProcessor.from_pretrained(self._processor)
        return self._processor


def seen_size(size: Size, min_pixels: int | None, max_pixels: int | None, *, processor: Any) -> Size | None:
    """The size at which the model sees a picture: EasyR1 resizes it to its limits first, then the processor does.

    Args:
        size: (width, height) of the picture.
        min_pixels: `data.min_pixels`.
        max_pixels: `data.max_pixels`.
        processor: as `dpad_fast.model_size_for` takes it.
    """
    width, height = size
    if max_pixels is not None and width * height > max_pixels:
        factor = math.sqrt(max_pixels / (width * height))
        width, height = int(width * factor), int(height * factor)
    if min_pixels is not None and width * height < min_pixels:
        factor = math.sqrt(min_pixels / (width * height))
        width, height = int(width * factor), int(height * factor)
    seen = model_size_for((width, height), processor)
    return seen if seen is not None or (width, height) == size else (width, height)


def _scores(recipe: Recipe, texts: Sequence[str], rows: Sequence[Any]) -> list[dict[str, float]]:
    scorer = recipe.made()
    batch = scorer.score([without_end(text) for text in texts], rows)
    overall = totals(batch, lowest(scorer.config))
    return [{"overall": total, **numbers_of(batch, i)} for i, total in enumerate(overall)]


def _recipe(settings: Mapping[str, Any]) -> Recipe:
    """One recipe per settings: EasyR1 calls the function anew with them each time."""
    key = repr(sorted(settings.items(), key=lambda item: item[0]))
    if key not in _recipes:
        _recipes[key] = Recipe("EasyR1", settings)
    return _recipes[key]
