"""The unit of work of the reward stage, and the ways to do it that users have today.

16 queries with G = 8 completions each, photographs of 640 x 480, captions of 6 to 24 words, CLIP ViT-B/32 of the true
size with random weights. Only open_clip's package carries CLIP's vocabulary, so it has to be installed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from dpad_fast.reference import released

WIDTH, HEIGHT = 640, 480
QUERIES, GROUP = 16, 8
VOCABULARY = (
    "a the one two small large red green blue white black brown striped wooden metal plastic old new round square "
    "man woman child dog cat horse bird car bus train bicycle boat table chair lamp bottle cup plate bowl knife "
    "window door wall floor tree flower grass sky cloud street sign road bench fence house roof tower bridge "
    "river lake beach left right top bottom middle corner front behind beside under above near far between inside "
    "outside next to of in on at with without that which who is are stands sits lies hangs holds wears carries "
    "looks seen parked leaning standing sitting lying object person animal vehicle furniture food drink fruit "
    "apple banana orange bread cake pizza phone laptop keyboard book paper bag hat shoe shirt jacket umbrella "
    "ball kite board glove racket clock vase mirror towel used for cutting eating sleeping riding boiling water "
    "warm cold bright dark empty full open closed broken clean"
)
WORDS = VOCABULARY.split()


@dataclass(frozen=True)
class Work:
    """Completions with their ground truths (as solution strings) and pictures; equal pictures are one object."""

    texts: list[str]
    solutions: list[str]
    pictures: list[Image.Image]

    def part(self, count: int) -> Work:
        """The first `count` completions."""
        return Work(self.texts[:count], self.solutions[:count], self.pictures[:count])


def photograph(seed: int) -> Image.Image:
    """Smooth waves with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    periods = rng.uniform(25, 90, 6)
    waves = [128 + 90 * np.sin(x / periods[c]) * np.cos(y / periods[c + 3]) for c in range(3)]
    noise = rng.normal(0, 12, (HEIGHT, WIDTH, 3))
    return Image.fromarray(np.clip(np.stack(waves, -1) + noise, 0, 255).astype(np.uint8))


def make_work(
    pictures: list[Image.Image], count: int, seed: int, group: int = GROUP, words: Sequence[str] = WORDS
) -> Work:
    """`count` completions in groups; group g shows picture g (modulo their number) and has a box of its own.

    Captions are made of `words`.
    """
    rng = random.Random(seed)
    texts, solutions, shown = [], [], []
    for i in range(count):
        query = i // group
        # By the picture, not by the seed: a training set's boxes do not change from epoch to epoch.
        place = random.Random(query % len(pictures))
        x1, y1 = place.randrange(0, 300), place.randrange(0, 200)
        box = (x1, y1, x1 + place.randrange(120, 320), y1 + place.randrange(120, 270))
        points = [(box[0] + 30, box[1] + 40), (box[2] - 30, box[3] - 40)]
        guess = [value + rng.randrange(-8, 9) for value in box]
        caption = " ".join(rng.choice(words) for _ in range(rng.randrange(6, 25)))
        answer = json.dumps({"bbox": guess, "points_1": points[0], "points_2": points[1]})
        think = " ".join(rng.choice(WORDS) for _ in range(60))
        texts.append(f"<think>{think}</think> <answer>{answer}</answer> <caption>{caption}</caption>")
        corners = "({},{}),({},{})".format(*box)
        dots = "({},{}),({},{})".format(*points[0], *points[1])
        solutions.append(f"<box>{corners}</box><points>{dots}</points>")
        shown.append(pictures[query % len(pictures)])
    return Work(texts, solutions, shown)


def make_clip() -> tuple[Any, Any, Any]:
    """CLIP ViT-B/32 with random weights; a processor as `RewardScorer` takes it; and transformers' fast processor."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig()).eval()
    slow, fast = make_processors()
    if slow.tokenizer.eos_token_id != model.config.text_config.eos_token_id:
        raise RuntimeError(f"open_clip's vocabulary ends with {slow.tokenizer.eos_token_id}, not with CLIP's end token")
    return model, slow, fast


def make_tiny() -> tuple[Any, Any, Any]:
    """As `make_clip`, with two layers of 32 and pictures of 32 x 32: to rehearse. Its words are `testing.rewards`'."""
    from transformers import CLIPImageProcessor

    from dpad_fast.testing import rewards

    model, slow = rewards.tiny_clip()
    size = {"height": 32, "width": 32}
    fast = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
    return model, slow, SimpleNamespace(tokenizer=slow.tokenizer, image_processor=fast)


def make_processors() -> tuple[Any, Any]:
    """CLIP's tokenizer, with the image processor that works on Pillow's pixels and with transformers' fast one."""
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPImageProcessor, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    source = SimpleTokenizer()
    renamed = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {renamed.get(entry, entry): number for entry, number in source.encoder.items()}
    merges = sorted(source.bpe_ranks, key=source.bpe_ranks.__getitem__)
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges)
    slow = SimpleNamespace(tokenizer=tokenizer, image_processor=CLIPImageProcessorPil())
    return slow, SimpleNamespace(tokenizer=tokenizer, image_processor=CLIPImageProcessor())


def discrete(text: str, solution: str) -> list[float]:
    """The discrete terms of one completion, with the authors' expressions."""
    return [
        released.thinking_format_reward(text),
        released.segmentation_format_reward(text),
        released.iou_reward(text, solution),
        released.box_l1_reward(text, solution),
        released.point_l1_reward(text, solution),
    ]


def region(solution: str) -> tuple[int, int, int, int]:
    match = released.BOX.search(solution)
    assert match is not None
    x1, y1, x2, y2 = (int(number) for number in match.groups())
    return x1, y1, x2, y2


def caption(text: str) -> str:
    match = released.CAPTION.search(text)
    assert match is not None
    return match.group(1).strip()


def one_at_a_time(work: Work, model: Any, processor: Any) -> torch.Tensor:
    """As the authors do: per completion two full CLIP forwards, caption with region and caption with image.

    It runs where the model is.

    Returns:
        float32 [N, 2], S1 and S2.
    """
    found = []
    for text, solution, picture in zip(work.texts, work.solutions, work.pictures, strict=True):
        discrete(text, solution)
        ids = processor.tokenizer(caption(text), return_tensors="pt").to(model.device)
        pair = []
        for view in (picture.crop(region(solution)), picture):
            pixels = processor.image_processor(images=view, return_tensors="pt")["pixel_values"].to(model.device)
            with torch.no_grad():
                out = model(**ids, pixel_values=pixels)
            pair.append(float((out.text_embeds * out.image_embeds).sum()))
        found.append(pair)
    return torch.tensor(found)


Place = tuple[int, Any]


def views_of(work: Work) -> tuple[dict[Place, Image.Image], list[tuple[Place, Place]]]:
    """Every region and every whole picture once, and for each completion which two are its own."""
    views: dict[Place, Image.Image] = {}
    places = []
    for solution, picture in zip(work.solutions, work.pictures, strict=True):
        box = region(solution)
        places.append(((id(picture), box), (id(picture), None)))
        views.setdefault(places[-1][0], picture.crop(box))
        views.setdefault(places[-1][1], picture)
    return views, places


class HandWritten:
    """What a careful user writes on transformers: equal pictures once, one batch of images, one of captions.

    Args:
        model: a CLIPModel.
        processor: transformers' fast processor.
        remember: keep the embeddings of pictures from call to call.
    """

    def __init__(self, model: Any, processor: Any, remember: bool = False) -> None:
        self.model, self.processor, self.remember = model, processor, remember
        self.known: dict[tuple[int, Any], torch.Tensor] = {}

    def __call__(self, work: Work) -> torch.Tensor:
        """float32 [N, 2], S1 and S2."""
        for text, solution in zip(work.texts, work.solutions, strict=True):
            discrete(text, solution)
        views, places = views_of(work)
        if not self.remember:
            self.known = {}
        missing = [place for place in views if place not in self.known]
        with torch.inference_mode():
            if missing:
                images = self.embed_views([views[place] for place in missing])
                self.known.update(zip(missing, images, strict=True))
            captions = list(dict.fromkeys(caption(text) for text in work.texts))
            texts = self.embed_captions(captions)
        rows = torch.tensor([captions.index(caption(text)) for text in work.texts])
        sides = [torch.stack([self.known[pair[side]] for pair in places]) for side in (0, 1)]
        return torch.stack([(texts[rows] * side).sum(-1) for side in sides], dim=1)

    def embed_views(self, views: list[Image.Image]) -> torch.Tensor:
        """float32 [N, D], of unit length."""
        return unit(self.model.get_image_features(**self.processor.image_processor(views, return_tensors="pt")))

    def embed_captions(self, captions: list[str]) -> torch.Tensor:
        """float32 [N, D], of unit length."""
        return unit(
            self.model.get_text_features(**self.processor.tokenizer(captions, padding=True, return_tensors="pt"))
        )


def unit(output: Any) -> torch.Tensor:
    return torch.nn.functional.normalize(getattr(output, "pooler_output", output), dim=-1)
