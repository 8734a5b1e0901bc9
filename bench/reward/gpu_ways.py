"""The contestants of `bench.reward --device`: one at a time, hand-written on transformers and on open_clip, and ours.

All score the same `Work`, whose pictures are PIL images or the bytes of JPEG files, which are decoded within the call.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image

import dpad_fast as df
from bench.reward import work as ways
from bench.reward.race import Contestant
from dpad_fast.clip.encoder import PRECISIONS
from dpad_fast.timer import Timer

PIL, JPEG, KNOWN = "PIL", "JPEG bytes", "images known"
HALVES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Clip:
    """A CLIPModel on the CPU in float32, with processors on Pillow's pixels and on transformers' fast ones."""

    model: Any
    slow: Any
    fast: Any


@dataclass(frozen=True)
class Entry:
    """A contestant.

    Attributes:
        name: of the way.
        pictures: how it gets them: "PIL", "JPEG bytes" or "images known".
        way: scores a `Work`.
        exact: whether it promises float32's decisions.
        note: what there is to say about it.
        sample: whether it is timed on a part of the completions only.
    """

    name: str
    pictures: str
    way: Any
    exact: bool = False
    note: str = ""
    sample: bool = False


class Towers(Protocol):
    """A model that a user has put on a device."""

    def pixels(self, views: list[Image.Image]) -> torch.Tensor:
        """[N, 3, S, S] on the device."""

    def images(self, pixels: torch.Tensor) -> Any:
        """Embeddings of what `pixels` made."""

    def texts(self, captions: list[str]) -> Any:
        """Embeddings of captions."""


class OnTransformers:
    """A CLIPModel where it is; its pixels by transformers' fast processor on the CPU or on the model's device."""

    def __init__(self, model: Any, processor: Any, pixels_there: bool) -> None:
        self.model, self.processor = model, processor
        self.device, self.dtype = model.device, model.dtype
        self.options = {"device": model.device} if pixels_there else {}

    def pixels(self, views: list[Image.Image]) -> torch.Tensor:
        """See `Towers`."""
        made = self.processor.image_processor(views, return_tensors="pt", **self.options)
        found: torch.Tensor = made["pixel_values"].to(self.device, self.dtype)
        return found

    def images(self, pixels: torch.Tensor) -> Any:
        """See `Towers`."""
        return self.model.get_image_features(pixel_values=pixels)

    def texts(self, captions: list[str]) -> Any:
        """See `Towers`."""
        ids = self.processor.tokenizer(captions, padding=True, return_tensors="pt").to(self.device)
        return self.model.get_text_features(**ids)


class OnOpenClip:
    """The same weights in open_clip's model, with its own transform and tokenizer."""

    def __init__(self, clip: Clip, device: torch.device, dtype: torch.dtype) -> None:
        from open_clip.tokenizer import SimpleTokenizer
        from open_clip.transform import image_transform

        self.model = open_clip_of(clip.model).to(device, dtype)
        self.device, self.dtype = device, dtype
        vision, text = clip.model.config.vision_config, clip.model.config.text_config
        self.transform: Any = image_transform(vision.image_size, is_train=False)
        self.tokenizer: Any = SimpleTokenizer(context_length=text.max_position_embeddings)
        if self.tokenizer.vocab_size != text.vocab_size:  # a small model with a vocabulary of its own
            self.tokenizer = lambda captions: clip.fast.tokenizer(
                captions, padding="max_length", max_length=text.max_position_embeddings, return_tensors="pt"
            )["input_ids"]

    def pixels(self, views: list[Image.Image]) -> torch.Tensor:
        """See `Towers`."""
        return torch.stack([self.transform(view) for view in views]).to(self.device, self.dtype)

    def images(self, pixels: torch.Tensor) -> Any:
        """See `Towers`."""
        return self.model.encode_image(pixels)

    def texts(self, captions: list[str]) -> Any:
        """See `Towers`."""
        return self.model.encode_text(self.tokenizer(captions).to(self.device))


def open_clip_of(model: Any) -> Any:
    """open_clip's model with the weights of a CLIPModel."""
    import open_clip

    text, vision = model.config.text_config, model.config.vision_config
    made = open_clip.CLIP(
        model.config.projection_dim,
        vision_cfg={
            "image_size": vision.image_size, "patch_size": vision.patch_size, "width": vision.hidden_size,
            "layers": vision.num_hidden_layers, "head_width": vision.hidden_size // vision.num_attention_heads,
            "mlp_ratio": vision.intermediate_size / vision.hidden_size,
        },
        text_cfg={
            "context_length": text.max_position_embeddings, "vocab_size": text.vocab_size, "width": text.hidden_size,
            "layers": text.num_hidden_layers, "heads": text.num_attention_heads,
            "mlp_ratio": text.intermediate_size / text.hidden_size,
        },
        quick_gelu=text.hidden_act == "quick_gelu",
    )  # fmt: skip
    made.load_state_dict(_renamed(model.state_dict()))
    return made.eval()


_TOWERS = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "logit_scale": "logit_scale",
}
_PARTS = {
    "text_model.encoder.layers.": "transformer.resblocks.",
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
    "text_model.final_layer_norm": "ln_final",
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
    ".layer_norm": ".ln_",
    ".self_attn.": ".attn.",
    ".fc1.": ".c_fc.",
    ".fc2.": ".c_proj.",
}


def _renamed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of transformers' CLIP under open_clip's names; queries, keys and values joined."""
    found: dict[str, torch.Tensor] = {}
    for name, value in weights.items():
        if name.endswith("position_ids") or ".k_proj." in name or ".v_proj." in name:
            continue
        if ".q_proj." in name:
            joined = torch.cat(
                [weights[name.replace(".q_proj.", part)] for part in (".q_proj.", ".k_proj.", ".v_proj.")]
            )
            name, value = name.replace("q_proj.", "in_proj_"), joined
        if name.endswith("_projection.weight"):
            found["visual.proj" if name.startswith("visual") else "text_projection"] = value.T
            continue
        new = _TOWERS.get(name, name)
        for old, part in _PARTS.items():
            new = new.replace(old, part)
        found[new] = value
    return found


class Batched:
    """What a careful user writes: equal pictures once, one batch of images, one of captions, on a device.

    Args:
        towers: the model.
        remember: keep the embeddings of pictures from call to call.

    Attributes:
        stages: seconds of each stage, a dictionary per call.
        wait: what a stage ends with; one that waits for the device tells the stages apart, and costs time.
    """

    def __init__(self, towers: Towers, remember: bool = False) -> None:
        self.towers, self.remember = towers, remember
        self.stages: list[dict[str, float]] = []
        self.wait: Callable[[], Any] = lambda: None
        self._known: tuple[dict[ways.Place, int], torch.Tensor] | None = None

    def prepare(self, work: ways.Work) -> None:
        """The images are known from an earlier call, or nothing is."""
        if self.remember and self._known is None:
            self._known = self._embed(ways.views_of(work)[0], Timer({}))

    def __call__(self, work: ways.Work) -> torch.Tensor:
        """float32 [N, 2] on the CPU, S1 and S2."""
        seconds: dict[str, float] = {}
        timer = Timer(seconds)
        for text, solution in zip(work.texts, work.solutions, strict=True):
            ways.discrete(text, solution)
        timer.lap("parse")
        views, places = ways.views_of(decoded(work))
        timer.lap("preprocess")
        at, images = self._known or self._embed(views, timer)
        captions = [ways.caption(text) for text in work.texts]
        unique = {text: i for i, text in enumerate(dict.fromkeys(captions))}
        with torch.inference_mode():
            texts = ways.unit(self.towers.texts(list(unique)))
            self._lap(timer, "text")
            rows = torch.tensor([unique[text] for text in captions], device=images.device)
            sides = [torch.tensor([at[pair[side]] for pair in places], device=images.device) for side in (0, 1)]
            found = torch.stack([(texts[rows] * images[side]).sum(-1) for side in sides], dim=1).float().cpu()
        self._lap(timer, "combine")
        self.stages.append(seconds)
        return found

    def _embed(self, views: dict[ways.Place, Image.Image], timer: Timer) -> tuple[dict[ways.Place, int], torch.Tensor]:
        with torch.inference_mode():
            pixels = self.towers.pixels(list(views.values()))
            self._lap(timer, "preprocess")
            images = ways.unit(self.towers.images(pixels))
            self._lap(timer, "image")
        return {place: i for i, place in enumerate(views)}, images

    def _lap(self, timer: Timer, stage: str) -> None:
        self.wait()
        timer.lap(stage)


def decoded(work: ways.Work) -> ways.Work:
    """The same with pictures that can be cropped: files are decoded, each once, in threads."""
    files = list({id(picture): picture for picture in work.pictures if isinstance(picture, bytes)}.values())
    if not files:
        return work
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        opened = dict(zip(map(id, files), pool.map(opened_file, files), strict=True))
    return ways.Work(work.texts, work.solutions, [opened[id(picture)] for picture in work.pictures])


def opened_file(content: bytes) -> Image.Image:
    """A JPEG file's picture."""
    return Image.open(io.BytesIO(content)).convert("RGB")


def encoded(picture: Image.Image) -> bytes:
    """A picture as a JPEG file."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


class OneAtATime:
    """The released way with the model on a device: per completion two crops, two full forwards."""

    def __init__(self, clip: Clip, device: torch.device) -> None:
        self.model, self.processor = copy.deepcopy(clip.model).to(device), clip.slow

    def __call__(self, work: ways.Work) -> torch.Tensor:
        """float32 [N, 2] on the CPU, S1 and S2."""
        return ways.one_at_a_time(work, self.model, self.processor)


def entries(clip: Clip, device: torch.device) -> Iterator[tuple[str, Callable[[], list[Entry]]]]:
    """What makes the contestants of each model on the device: a name for it, and a call that may fail."""
    for precision in PRECISIONS:
        yield f"dpad_fast {precision}", lambda precision=precision: ours(clip, device, precision)  # type: ignore[misc]
    yield "one at a time", lambda: [Entry("one at a time, float32", PIL, OneAtATime(clip, device), sample=True)]
    for dtype in (torch.float32, *HALVES):
        yield f"transformers {short(dtype)}", lambda dtype=dtype: hand_written(clip, device, dtype)  # type: ignore[misc]
    for dtype in (torch.float32, torch.float16):
        yield f"open_clip {short(dtype)}", lambda dtype=dtype: on_open_clip(clip, device, dtype)  # type: ignore[misc]


def ours(clip: Clip, device: torch.device, precision: str) -> list[Entry]:
    """This package's, in one precision, with pictures in every form."""
    encoder = df.ClipEncoder.from_transformers(clip.model, clip.slow, precision=precision, device=device)
    names = "; ".join(dict.fromkeys(encoder.forward.values()))
    note = f"{names}{f'; margin {encoder.margin:.1e}' if encoder.margin else ''}"
    forms = ((PIL, False), (JPEG, False), (KNOWN, True))
    return [
        Entry(f"dpad_fast {precision}", form, Contestant(encoder, known), precision in ("float32", "guarded"), note)
        for form, known in forms
    ]


def hand_written(clip: Clip, device: torch.device, dtype: torch.dtype) -> list[Entry]:
    """On transformers, in one dtype: pixels of the CPU and of the device, pictures in every form."""
    model = copy.deepcopy(clip.model).to(device, dtype)
    here, there = (OnTransformers(model, clip.fast, pixels_there) for pixels_there in (False, True))
    name = f"transformers, {short(dtype)}"
    return [
        Entry(f"{name}, CPU pixels", PIL, Batched(here)),
        Entry(f"{name}, GPU pixels", PIL, Batched(there)),
        Entry(f"{name}, GPU pixels", JPEG, Batched(there)),
        Entry(f"{name}, GPU pixels", KNOWN, Batched(there, remember=True)),
    ]


def on_open_clip(clip: Clip, device: torch.device, dtype: torch.dtype) -> list[Entry]:
    """On open_clip, in one dtype; its transform works on the CPU."""
    towers, name = OnOpenClip(clip, device, dtype), f"open_clip, {short(dtype)}"
    return [Entry(name, form, Batched(towers, remember=form == KNOWN)) for form in (PIL, JPEG, KNOWN)]


def short(dtype: torch.dtype) -> str:
    """A dtype's name without torch's."""
    return str(dtype).removeprefix("torch.")
