"""Completions of a policy, by sampling.

Sampling rather than greedy decoding, because a policy trained by reinforcement is a mixture: the most probable answer
hides how often it does something else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from dpad_fast.train.shared_vision import share_vision
from dpad_fast.types import Sample

Progress = Callable[[int, int], None]


def sample_completions(
    model: Any,
    processor: Any,
    items: Sequence[Sample],
    *,
    per_item: int = 1,
    batch: int = 64,
    max_new_tokens: int = 100,
    temperature: float = 1.0,
    seed: int = 0,
    progress: Progress | None = None,
    ask: Callable[[str], list[dict[str, Any]]] | None = None,
) -> list[list[str]]:
    """Sample `per_item` completions for every item.

    Args:
        model: a policy of transformers with `generate`.
        processor: its processor, with a chat template.
        items: samples whose image is a PIL image.
        per_item: completions per item.
        batch: completions generated at a time.
        max_new_tokens: longest completion.
        temperature: of sampling; 0 takes the most probable token each time.
        seed: of sampling; the caller's random state is left as it was.
        progress: called with (completions done, completions in all).
        ask: the messages of a query, content as blocks with one of the picture; the query alone when None.

    Returns:
        One list of `per_item` texts per item.

    Raises:
        ValueError: if a count is not positive, or the temperature is below 0 or no number.
    """
    for name, value in {"per_item": per_item, "batch": batch, "max_new_tokens": max_new_tokens}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be 0 (greedy) or more, got {temperature}")
    if model.device.type == "cpu":
        share_vision(model)
    rows = [item for item in items for _ in range(per_item)]
    texts: list[str] = []
    was_training = model.training
    model.eval()
    try:
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            for start in range(0, len(rows), batch):
                part = rows[start : start + batch]
                messages = [(ask or _plain_turn)(item.query) for item in part]
                texts += _generate(model, processor, part, messages, max_new_tokens, temperature)
                if progress is not None:
                    progress(len(texts), len(rows))
    finally:
        model.train(was_training)
    return [texts[i : i + per_item] for i in range(0, len(texts), per_item)]


def _plain_turn(query: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": query}]}]


def _generate(
    model: Any, processor: Any, items: Sequence[Sample], turns: Sequence[Any], tokens: int, temperature: float
) -> list[str]:
    prompts = [processor.apply_chat_template(turn, add_generation_prompt=True) for turn in turns]
    images = [[item.image] for item in items]
    never = {model.config.image_token_id, *(model.generation_config.suppress_tokens or ())}
    try:
        inputs = processor(text=prompts, images=images, padding=True, padding_side="left", return_tensors="pt")
    except ValueError as error:  # such as a picture that is too narrow for the family
        raise _naming_the_picture(processor, items) or error from error
    inputs = inputs.to(model.device)
    tokenizer = processor.tokenizer
    sampled = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    # None: a policy's own settings for sampling would be warned about.
    greedy = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
    chosen: dict[str, Any] = sampled if temperature > 0 else greedy
    output = model.generate(
        **inputs,
        max_new_tokens=tokens,
        **chosen,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        suppress_tokens=sorted(never),
    )
    answers = output[:, inputs["input_ids"].shape[1] :]
    decoded: list[str] = processor.batch_decode(answers, skip_special_tokens=True)
    return decoded


def _naming_the_picture(processor: Any, items: Sequence[Sample]) -> ValueError | None:
    """The error of the first picture that the processor does not take; None where it takes each of them."""
    for item in items:
        try:
            processor.image_processor([item.image], return_tensors="pt")
        except ValueError as error:
            width, height = getattr(item.image, "size", ("?", "?"))
            return ValueError(f"{item.id}: the policy cannot see a picture of {width} x {height} pixels: {error}")
    return None
