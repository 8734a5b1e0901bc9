"""The one-at-a-time way as verl's own manager calls it: a reward function that gets a picture's path and one answer."""

from __future__ import annotations

import threading
from functools import cache
from types import SimpleNamespace
from typing import Any

from PIL import Image

from bench.trainers.work import plain_reward

_loading = threading.Lock()


@cache
def _clip(folder: str) -> tuple[Any, Any]:
    """The model and its processor, loaded once per process."""
    from transformers import CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = SimpleNamespace(
        tokenizer=CLIPTokenizer.from_pretrained(folder), image_processor=CLIPImageProcessorPil.from_pretrained(folder)
    )
    return CLIPModel.from_pretrained(folder).eval(), processor


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any], clip: str, threads: int
) -> float:
    """The released rewards of one answer, by two CLIP forwards."""
    import torch

    torch.set_num_threads(threads)
    with _loading:  # the manager calls from several threads, and each would load its own
        model, processor = _clip(clip)
    with Image.open(extra_info["image"]) as picture:
        return plain_reward(model, processor, [solution_str], [ground_truth], [picture.convert("RGB")])[0]
