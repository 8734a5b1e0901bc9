"""From a picture and a question to an answer: chain, location, description, mask, S1 and S2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from dpad_fast.clip.images import find_pictures
from dpad_fast.clip.regions import EmptyRegion, region_of
from dpad_fast.coco_mask import encode
from dpad_fast.evaluate.answers import scale_to
from dpad_fast.evaluate.measure import chain_of
from dpad_fast.evaluate.sampling import Progress, sample_completions
from dpad_fast.model_size import model_size_for
from dpad_fast.rewards import RewardConfig, parse_completion
from dpad_fast.rewards.config import COORDINATES
from dpad_fast.rewards.parse import find_between, load_json
from dpad_fast.rewards.spaces import in_pixels
from dpad_fast.segmenters import Prompt, Segmenter, prompts_of
from dpad_fast.train.families import SPACES, family_of
from dpad_fast.train.sections import TEMPLATES
from dpad_fast.train.templates import prompt_text
from dpad_fast.types import BoolMask, Completion, Sample, Size, Target

if TYPE_CHECKING:
    from dpad_fast.clip import ClipEncoder

Messages = list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Inference:
    """One answer to one question about one picture.

    Attributes:
        query: the question.
        answer: the parsed completion, in pixels of the picture; `answer.text` is the whole completion.
        size: (width, height) of the picture.
        mask: bool [H, W], or None without a segmenter or where the answer has no box, point or polygon for it.
        s1: cosine of the description and the answer's box, None without encoder, box or description.
        s2: cosine of the description and the whole picture, None likewise.
    """

    query: str
    answer: Completion
    size: Size
    mask: BoolMask | None = None
    s1: float | None = None
    s2: float | None = None

    @property
    def chain(self) -> str:
        """The reasoning."""
        return chain_of(self.answer.text).strip()

    @property
    def prompts(self) -> list[Prompt]:
        """The location: a box and points per object."""
        return prompts_of(self.answer)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the mask as COCO's run lengths."""
        rings = self.answer.rings
        return {
            "query": self.query,
            "text": self.answer.text,
            "chain": self.chain,
            "objects": [{"box": p.box, "points": p.points, "labels": p.labels} for p in self.prompts],
            "polygons": None if rings is None else [ring.tolist() for ring in rings],
            "description": self.answer.caption,
            "s1": self.s1,
            "s2": self.s2,
            "reason": self.answer.reasons[0] if self.answer.reasons else None,
            "size": list(self.size),
            "mask": None if self.mask is None else _run_lengths(self.mask),
        }


def ask_as(prompt: str, system: str = "", coordinates: str = "pixel") -> Callable[[str], Messages]:
    """The messages that ask a question, as training asks it.

    Args:
        prompt: "dpad", "seg-zero", "vision-reasoner", or a text in which {question} is replaced.
        system: the system's turn; none when empty.
        coordinates: what a named prompt asks for: "pixel", "norm1000" or "norm1".

    Returns:
        A function of the question, for `infer` and `sample_completions`.

    Raises:
        ValueError: a text without {question}.
    """
    if prompt not in TEMPLATES and "{question}" not in prompt:
        raise ValueError(
            f"prompt template is {prompt!r:.80}: neither one of {', '.join(TEMPLATES)} nor a text with {{question}}"
        )

    def ask(query: str) -> Messages:
        text = {"type": "text", "text": prompt_text(prompt, query, coordinates)}
        first = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
        return [*first, {"role": "user", "content": [{"type": "image"}, text]}]

    return ask


def coordinates_of(model: Any) -> str:
    """The coordinates of a policy's answers, by its family: "pixel" of the picture as it sees it, or "norm1000".

    Args:
        model: a policy of transformers.

    Raises:
        ValueError: its family is not known, or has no coordinates of its own; says what to give.
    """
    try:
        space = SPACES.get(family_of(model).coordinates)
    except ValueError:
        space = None
    if space is None:
        raise ValueError(
            f"coordinates: {type(model).__name__} has no space of its own that is known here; say in which one it was "
            f"taught to answer ({', '.join(COORDINATES)})"
        )
    return space


def read_answer(text: str) -> Completion:
    """Reads an answer of any of the presets' forms: one object with or without description, polygons, several objects.

    Args:
        text: the completion.

    Returns:
        The parsed completion, in the answer's own coordinates; `reasons` names its faults.
    """
    inside = find_between(text, "answer") or ""
    found = load_json(inside.strip())
    if isinstance(found, list):
        return parse_completion(text, RewardConfig.preset("vision-reasoner", strip=True))
    tagged = "dpad" if "<caption>" in text else "seg-zero"
    drawn = isinstance(found, dict) and "polygon" in found
    return parse_completion(text, RewardConfig.preset(tagged, geometry="mask" if drawn else "box"))


def infer(
    model: Any,
    processor: Any,
    images: Sequence[Any],
    queries: Sequence[str],
    *,
    per_image: int = 1,
    batch: int = 8,
    temperature: float = 0.0,
    seed: int = 0,
    max_new_tokens: int = 512,
    coordinates: str | None = None,
    model_size: Size | None = None,
    ask: Callable[[str], Messages] | None = None,
    segmenter: Segmenter | None = None,
    encoder: ClipEncoder | None = None,
    progress: Progress | None = None,
) -> list[list[Inference]]:
    """Asks a policy N questions about N pictures.

    Args:
        model: a policy of transformers.
        processor: its processor.
        images: N pictures, each anything that `RewardScorer.score` takes.
        queries: N questions.
        per_image: answers to each; more than one needs a temperature.
        batch: completions generated at a time.
        temperature: of sampling; 0 takes the most probable token each time.
        seed: of sampling.
        max_new_tokens: longest completion.
        coordinates: what answers are in: "pixel" (of the picture as the policy sees it), "norm1000" or "norm1"; None:
            as its family has it.
        model_size: (width, height) that answers in pixels refer to; None: each picture's as the policy sees it.
        ask: makes the messages of a question; None: the question alone, after the picture.
        segmenter: makes masks.
        encoder: compares descriptions with pictures.
        progress: called with (completions done, completions in all).

    Returns:
        Per picture its answers.

    Raises:
        ValueError: a bad argument or picture; names it.
    """
    if len(images) != len(queries):
        raise ValueError(f"images has {len(images)} entries, queries has {len(queries)}")
    if per_image > 1 and temperature == 0:
        raise ValueError(f"per_image is {per_image}, but at temperature 0 all answers are one: give a temperature")
    if coordinates is not None and coordinates not in COORDINATES:
        raise ValueError(f"coordinates must be one of {', '.join(COORDINATES)}, got {coordinates!r:.80}")
    space = coordinates or coordinates_of(model)
    shown = _as_rgb(images)
    items = [
        Sample(f"images[{i}]", image, query, Target())
        for i, (image, query) in enumerate(zip(shown, queries, strict=True))
    ]
    texts = sample_completions(
        model,
        processor,
        items,
        per_item=per_image,
        batch=batch,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        progress=progress,
        ask=ask,
    )
    rows = [i for i in range(len(items)) for _ in range(per_image)]

    def seen_as(size: Size) -> Size | None:
        return model_size or model_size_for(size, processor)

    answers = [
        in_pixels(read_answer(text), scale_to(shown[i].size, space, seen_as))
        for i, text in zip(rows, (text for group in texts for text in group), strict=True)
    ]
    sizes = [shown[i].size for i in rows]
    masks: list[BoolMask | None] = [None] * len(rows)
    if segmenter is not None:
        masks = segmenter.segment(answers, [shown[i] for i in rows], sizes)
    similar = _similarities(encoder, answers, [shown[i] for i in rows])
    found = [
        Inference(queries[i], answer, size, mask, *pair)
        for i, answer, size, mask, pair in zip(rows, answers, sizes, masks, similar, strict=True)
    ]
    return [found[i * per_image : (i + 1) * per_image] for i in range(len(items))]


def _as_rgb(images: Sequence[Any]) -> list[Image.Image]:
    """Upright RGB pictures; equal ones are one object, so that models embed them once."""
    pictures, places = find_pictures(images, None)
    made = [Image.fromarray(picture.pixels().contiguous().cpu().numpy()) for picture in pictures]
    return [made[place] for place in places]


def _similarities(
    encoder: ClipEncoder | None, answers: Sequence[Completion], images: Sequence[Image.Image]
) -> list[tuple[float | None, float | None]]:
    """S1 and S2 of each answer; a description beyond the encoder's context is cut."""
    found: list[tuple[float | None, float | None]] = [(None, None)] * len(answers)
    if encoder is None:
        return found
    rows, boxes = [], []
    for i, (answer, image) in enumerate(zip(answers, images, strict=True)):
        box = next((prompt.box for prompt in prompts_of(answer) if prompt.box is not None), None)
        if answer.caption and box is not None:
            try:
                boxes.append(region_of(box, image.size, clip=True))
                rows.append(i)
            except EmptyRegion:
                continue
    if not rows:
        return found
    texts = encoder.embed_texts([answers[i].caption or "" for i in rows], truncate=True)
    shown = [images[i] for i in rows]
    s1 = (texts * encoder.embed_images(shown, boxes)).sum(dim=1).tolist()
    s2 = (texts * encoder.embed_images(shown)).sum(dim=1).tolist()
    for place, i in enumerate(rows):
        found[i] = (s1[place], s2[place])
    return found


def _run_lengths(mask: BoolMask) -> dict[str, Any]:
    import numpy as np

    coded = encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(coded["size"]), "counts": coded["counts"].decode()}
