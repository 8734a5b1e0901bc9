"""`ClipEncoder`: captions and image regions to unit embeddings, each distinct one embedded once."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import torch

from dpad_fast.clip.cache import EmbeddingCache
from dpad_fast.clip.preprocess import Preprocess, Region
from dpad_fast.clip.tokens import Ids, Tokens, from_open_clip, from_transformers

PRECISIONS = ("float32", "bfloat16", "guarded")
# Chunks bound memory only: 64 regions of 224 x 224 are 39 MB of input and some 300 MB of ViT-B/32 activations.
_IMAGE_CHUNK = 64
_TEXT_CHUNK = 256
# Families whose text tower is causal and read at the first end token, so that shorter rows give the same values.
_TRIMMED = ("clip",)
# Families trained on captions padded to the full length, all of which is attended to.
_FULL_LENGTH = ("siglip",)


class Picture(Protocol):
    """What the encoder asks of an image: a key that tells contents apart, and its pixels."""

    @property
    def key(self) -> Hashable:
        """Equal for equal contents."""
        ...

    def pixels(self) -> torch.Tensor:
        """uint8 [H, W, 3]."""
        ...


class ClipEncoder:
    """A frozen CLIP-like model with its tokenizer and image preprocessing.

    Made by `from_transformers`, `from_open_clip` or `dpad_fast.load_encoder`. The model is put into evaluation mode.

    Attributes:
        name: what to call it in messages.
        precision: "float32", "bfloat16", or "guarded" (bfloat16, and float32 again near the threshold).
        margin: for "guarded", how far S1 - S2 (or S1) in bfloat16 may be from its threshold before the completion is
            embedded again in float32; measured on this model. 0 otherwise.
        compared: completions compared under "guarded" so far.
        recomputed: those of them that were embedded again in float32.
        cache: embeddings by content, box and precision; `cache.clear()` frees them.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        preprocess: Preprocess,
        tokens: Tokens,
        text_features: Callable[[torch.nn.Module, torch.Tensor, torch.Tensor], torch.Tensor],
        image_features: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor],
        *,
        trim: bool,
        precision: str = "float32",
        device: str | torch.device | None = None,
        name: str = "clip",
        cache: EmbeddingCache | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
        self.name, self.precision = name, precision
        self.preprocess, self.tokens = preprocess, tokens
        self.cache = EmbeddingCache() if cache is None else cache
        self.margin = 0.0
        self.compared = self.recomputed = 0
        self._text_features, self._image_features, self._trim = text_features, image_features, trim
        model.eval()
        self.device = torch.device(device) if device is not None else next(model.parameters()).device
        self._models: dict[bool, torch.nn.Module] = {}  # by whether exact
        if precision != "bfloat16":
            self._models[True] = _as(model, torch.float32, self.device)
        if precision != "float32":
            self._models[False] = _as(model, torch.bfloat16, self.device)
        if precision == "guarded":
            from dpad_fast.clip.guard import measure_margin

            self.margin = measure_margin(self)

    @classmethod
    def from_transformers(
        cls,
        model: Any,
        processor: Any,
        *,
        precision: str = "float32",
        device: str | torch.device | None = None,
        cache: EmbeddingCache | None = None,
    ) -> ClipEncoder:
        """From a model and processor of transformers: CLIP, SigLIP, and others with `get_text_features`.

        Args:
            model: has `get_text_features` and `get_image_features`.
            processor: a processor, with `tokenizer` and `image_processor`.
            precision: see the class.
            device: where it runs; None: where the model is. A model elsewhere is copied there.
            cache: a cache to share between encoders of the same model.

        Raises:
            ValueError: the processor does what `Preprocess` cannot express, or has no tokenizer; names what.
        """
        tokenizer = getattr(processor, "tokenizer", None)
        if tokenizer is None:
            raise ValueError(f"processor {type(processor).__name__} has no tokenizer")
        family = model.config.model_type
        text = model.config.text_config
        trim = family in _TRIMMED
        # Rows of a trimmed tower are filled with the end token, whose first occurrence is what is read.
        end = tokenizer.eos_token_id if trim else tokenizer.pad_token_id
        return cls(
            model,
            Preprocess.from_transformers(processor),
            from_transformers(tokenizer, int(text.max_position_embeddings), end),
            _masked_text if not trim and family not in _FULL_LENGTH else _plain_text,
            lambda module, pixels: _pooled(module.get_image_features(pixel_values=pixels)),  # type: ignore[operator]
            trim=trim,
            precision=precision,
            device=device,
            name=getattr(model, "name_or_path", "") or family,
            cache=cache,
        )

    @classmethod
    def from_open_clip(
        cls,
        model: Any,
        preprocess: Any,
        tokenizer: Any,
        *,
        precision: str = "float32",
        device: str | torch.device | None = None,
        cache: EmbeddingCache | None = None,
    ) -> ClipEncoder:
        """From what open_clip's factory returns: the model, the evaluation transform and the tokenizer.

        Raises:
            ValueError: the transform or tokenizer is not one of open_clip's own.
        """
        context = getattr(model, "context_length", None) or tokenizer.context_length
        return cls(
            model,
            Preprocess.from_open_clip(preprocess),
            from_open_clip(tokenizer, int(context)),
            lambda module, ids, _lengths: _tensor(module.encode_text(ids)),  # type: ignore[operator]
            lambda module, pixels: _tensor(module.encode_image(pixels)),  # type: ignore[operator]
            trim=False,
            precision=precision,
            device=device,
            name=f"open_clip {type(model).__name__}",
            cache=cache,
        )

    def embed_texts(self, ids: Sequence[Ids], *, exact: bool = False, timings: dict[str, float] | None = None) -> Any:
        """Unit embeddings of token id lists that fit the context.

        Args:
            ids: N lists, with start and end tokens.
            exact: in float32 even where `precision` is "guarded".
            timings: "text" is increased by the seconds spent.

        Returns:
            float32 [N, D] on the CPU.
        """
        began = time.perf_counter()
        exact = self._exact(exact)
        unique = list(dict.fromkeys(ids))
        found = {row: self.cache.get(("text", exact, row)) for row in unique}
        missing = sorted((row for row, value in found.items() if value is None), key=len)
        for start in range(0, len(missing), _TEXT_CHUNK):
            chunk = missing[start : start + _TEXT_CHUNK]
            for row, value in zip(chunk, self._run_texts(chunk, exact), strict=True):
                found[row] = value
                self.cache.put(("text", exact, row), value)
        _add(timings, "text", began)
        return torch.stack([_present(found[row]) for row in ids])

    def embed_regions(
        self,
        pictures: Sequence[Picture],
        regions: Sequence[tuple[int, Region]],
        *,
        exact: bool = False,
        timings: dict[str, float] | None = None,
    ) -> torch.Tensor:
        """Unit embeddings of image regions.

        Args:
            pictures: M images.
            regions: K pairs (index of the picture, box or None for the whole).
            exact: in float32 even where `precision` is "guarded".
            timings: "preprocess" and "image" are increased by the seconds spent.

        Returns:
            float32 [K, D] on the CPU.
        """
        exact = self._exact(exact)
        keys = [("image", exact, pictures[index].key, box) for index, box in regions]
        found = {key: self.cache.get(key) for key in dict.fromkeys(keys)}
        wanted = dict(zip(keys, regions, strict=True))
        missing = sorted((key for key, value in found.items() if value is None), key=lambda key: wanted[key][0])
        for start in range(0, len(missing), _IMAGE_CHUNK):
            chunk = missing[start : start + _IMAGE_CHUNK]
            values = self._run_regions(pictures, [wanted[key] for key in chunk], exact, timings)
            for key, value in zip(chunk, values, strict=True):
                found[key] = value
                self.cache.put(key, value)
        return torch.stack([_present(found[key]) for key in keys])

    def _exact(self, exact: bool) -> bool:
        return exact and True in self._models if self.precision != "float32" else True

    def _run_texts(self, rows: Sequence[Ids], exact: bool) -> torch.Tensor:
        lengths = torch.tensor([len(row) for row in rows])
        width = int(lengths.max()) if self._trim else self.tokens.context
        ids = torch.full((len(rows), width), self.tokens.pad, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        with torch.inference_mode():
            values = self._text_features(self._models[exact], ids.to(self.device), lengths.to(self.device))
        return self._unit(values)

    def _run_regions(
        self,
        pictures: Sequence[Picture],
        regions: Sequence[tuple[int, Region]],
        exact: bool,
        timings: dict[str, float] | None,
    ) -> torch.Tensor:
        began = time.perf_counter()
        used = {index: place for place, index in enumerate(dict.fromkeys(index for index, _ in regions))}
        pixels = [pictures[index].pixels() for index in used]
        inputs = self.preprocess(pixels, [box for _, box in regions], [used[index] for index, _ in regions])
        _add(timings, "preprocess", began)
        began = time.perf_counter()
        model = self._models[exact]
        with torch.inference_mode():
            values = self._image_features(model, inputs.to(self.device, next(model.parameters()).dtype))
        unit = self._unit(values)
        _add(timings, "image", began)
        return unit

    def _unit(self, values: torch.Tensor) -> torch.Tensor:
        values = values.detach().to("cpu", torch.float32)
        unit = torch.nn.functional.normalize(values, dim=-1)
        if not bool(torch.isfinite(unit).all()):
            raise ValueError(f"encoder {self.name!r} returned embeddings that are not finite; are its weights sound?")
        return unit


def _as(model: torch.nn.Module, dtype: torch.dtype, device: torch.device) -> torch.nn.Module:
    weights = list(model.parameters())
    if all(weight.dtype == dtype and weight.device == device for weight in weights):
        return model
    # A copy: the caller's model keeps its own dtype and place.
    return copy.deepcopy(model).to(device=device, dtype=dtype)


def _plain_text(model: Any, ids: torch.Tensor, _lengths: torch.Tensor) -> torch.Tensor:
    return _pooled(model.get_text_features(input_ids=ids))


def _masked_text(model: Any, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    mask = torch.arange(ids.shape[1], device=ids.device)[None, :] < lengths[:, None]
    return _pooled(model.get_text_features(input_ids=ids, attention_mask=mask.long()))


def _pooled(output: Any) -> torch.Tensor:
    return _tensor(getattr(output, "pooler_output", output))


def _tensor(value: Any) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"the model returned {type(value).__name__} instead of an embedding")
    return value


def _present(value: torch.Tensor | None) -> torch.Tensor:
    assert value is not None, "every missing key was computed above"
    return value


def _add(timings: dict[str, float] | None, stage: str, began: float) -> None:
    if timings is not None:
        timings[stage] = timings.get(stage, 0.0) + time.perf_counter() - began
