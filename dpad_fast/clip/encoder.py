"""`ClipEncoder`: captions and image regions to unit embeddings, each distinct one embedded once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import torch

from dpad_fast.cached import cached_property
from dpad_fast.clip import features
from dpad_fast.clip.cache import EmbeddingCache, finite_rows
from dpad_fast.clip.first_look import NO_LOOK, choose_first_look
from dpad_fast.clip.gpu_way import GpuWay, way_to
from dpad_fast.clip.inputs import content_keys
from dpad_fast.clip.margins import Calibration
from dpad_fast.clip.preprocess import PixelSource, Preprocess
from dpad_fast.clip.regions import Region
from dpad_fast.clip.requests import check_ids, read_images, read_texts
from dpad_fast.clip.step import GpuStep, HostStep, Step
from dpad_fast.clip.tokens import Ids, Tokens, from_open_clip, from_transformers
from dpad_fast.clip.tower.choose import make_forwards
from dpad_fast.clip.tower.forward import Forward, OwnForward

PRECISIONS = ("float32", "bfloat16", "guarded")
_AGAIN = "float32 of a second look"
_PROBE = ("a photo of a cat", "two")


class ClipEncoder:
    """A frozen CLIP-like model with its tokenizer and image preprocessing.

    Made by `from_transformers`, `from_open_clip` or `dpad_fast.load_encoder`. The model is put into evaluation mode.

    Attributes:
        name: what to call it in messages.
        precision: "float32", on a GPU IEEE's whatever torch's settings allow; "bfloat16", which stands for the fastest
            products of this machine that are at least as exact as bfloat16's; or "guarded": those, and float32 again
            near the threshold. On a GPU the first look is what is expected to cost least on this model; where even
            that is expected to repeat too much, "guarded" is float32.
        forward: per precision in use ("float32", "reduced") what computes it, attention included, in words.
        first_looks: the reduced precisions that were measured on this model, `Look`s, one of them `used` or none.
        margin: for "guarded", how far S1 - S2 (or S1) may be from its threshold before the completion is embedded again
            in float32; measured on this model. 0 otherwise.
        image_margin: the same once the caption is in float32, so that only the picture's embedding is still reduced.
        threads: CPU threads; None: as many as torch uses when called.
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
        threads: int | None = None,
        rows_at_once: int | None = None,
    ) -> None:
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r:.80}")
        self.name, self.precision = name, precision
        self.preprocess, self.tokens = preprocess, tokens
        tokens.rows = features.token_rows(model)
        self.cache = EmbeddingCache() if cache is None else cache
        self.threads = threads
        self._model = model.eval()
        self._process = os.getpid()
        self.device = torch.device(device) if device is not None else next(model.parameters()).device
        if self.device.type == "cuda" and self.device.index is None:
            # By its number: another thread, or the trainer later, may have another current GPU.
            self.device = torch.device("cuda", torch.cuda.current_device())

        def own_forward(copied: torch.nn.Module) -> OwnForward:
            return OwnForward(copied, text_features, image_features, None if trim else tokens.width, tokens.layout)

        probe = [ids for ids in tokens.encode(_PROBE) if not isinstance(ids, str)]
        probe = [tokens.truncate(ids) for ids in probe]
        made = make_forwards(model, self.device, precision, own_forward, probe, preprocess.size, rows_at_once)
        calibrate = partial(
            Calibration,
            tokens=tokens,
            preprocess=preprocess,
            threads=self.used_threads(),
            name=name,
        )
        chosen = choose_first_look(made, precision, calibrate)
        self._forwards, self.first_looks = chosen.forwards, chosen.looks
        self.forward = {"float32" if exact else "reduced": made.name for exact, made in self._forwards.items()}
        guard = chosen.used if precision == "guarded" else NO_LOOK
        self.margin, self.image_margin = guard.margin, guard.image_margin

    @classmethod
    def from_transformers(
        cls,
        model: Any,
        processor: Any,
        *,
        precision: str = "float32",
        device: str | torch.device | None = None,
        cache: EmbeddingCache | None = None,
        threads: int | None = None,
        rows_at_once: int | None = None,
    ) -> ClipEncoder:
        """From a model and processor of transformers: CLIP, SigLIP, and others with `get_text_features`.

        Args:
            model: has `get_text_features` and `get_image_features`.
            processor: a processor, with `tokenizer` and `image_processor`.
            precision: see the class.
            device: where it runs; None: where the model is. A model elsewhere is copied there.
            cache: a cache to share between encoders of the same model.
            threads: CPU threads; None: as many as torch uses (under Ray that is one).
            rows_at_once: the most tokens of captions, or patches of pictures, that the packed towers work on together,
                which bounds their memory; None: 2,048 on the CPU, 16,384 on a GPU. A model's own forward ignores it.

        Raises:
            ValueError: the processor does what `Preprocess` cannot express, changes captions otherwise than by its
                tokenizer, or has none; or the model does not say how many tokens it takes. Names what.
        """
        tokenizer = getattr(processor, "tokenizer", None)
        if tokenizer is None:
            raise ValueError(f"processor {type(processor).__name__} has no tokenizer")
        family = model.config.model_type
        trim, full = family in features.TRIMMED, family in features.FULL_LENGTH
        return cls(
            model,
            Preprocess.from_transformers(processor),
            from_transformers(processor, features.positions(model), end=trim, full=full),
            features.plain_text if trim or full else features.masked_text,
            lambda module, pixels: features.pooled(module.get_image_features(pixel_values=pixels)),  # type: ignore[operator]
            trim=trim,
            precision=precision,
            device=device,
            name=getattr(model, "name_or_path", "") or family,
            cache=cache,
            threads=threads,
            rows_at_once=rows_at_once,
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
        threads: int | None = None,
        rows_at_once: int | None = None,
    ) -> ClipEncoder:
        """From what open_clip's factory returns: the model, the evaluation transform and the tokenizer.

        Raises:
            ValueError: the transform or tokenizer is not one of open_clip's own, or not the model's.
        """
        return cls(
            model,
            Preprocess.from_open_clip(preprocess),
            from_open_clip(tokenizer, features.open_clip_context(model, tokenizer)),
            lambda module, ids, _lengths: features.tensor(module.encode_text(ids)),  # type: ignore[operator]
            lambda module, pixels: features.tensor(module.encode_image(pixels)),  # type: ignore[operator]
            trim=False,
            precision=precision,
            device=device,
            name=f"open_clip {type(model).__name__}",
            cache=cache,
            threads=threads,
            rows_at_once=rows_at_once,
        )

    def embed_texts(self, texts: Sequence[str], *, truncate: bool = False) -> torch.Tensor:
        """Unit embeddings of captions, in float32 unless `precision` is "bfloat16".

        Args:
            texts: N strings.
            truncate: cut captions beyond the model's context, as its own tokenizer does, instead of refusing them.

        Returns:
            float32 [N, D] on the CPU.

        Raises:
            ValueError: a caption is no string, no valid Unicode or too long; names its index.
        """
        rows = read_texts(self.tokens, texts, truncate)
        return self.embed_ids(rows, exact=True) if rows else self._no_embeddings()

    def embed_images(
        self, images: Sequence[Any], boxes: Sequence[Sequence[float] | None] | None = None
    ) -> torch.Tensor:
        """Unit embeddings of images or regions of them, in float32 unless `precision` is "bfloat16".

        Args:
            images: N images, in any form that `RewardScorer.score` takes.
            boxes: per image (x1, y1, x2, y2) in its pixels, rounded as `PIL.Image.crop` does, or None for the whole
                image; pixels outside the image are black.

        Returns:
            float32 [N, D] on the CPU.

        Raises:
            ValueError: an image cannot be read or a box has no area; names the index.
        """
        pictures, regions = read_images(images, boxes)
        return self.embed_regions(pictures, regions, exact=True) if regions else self._no_embeddings()

    def _no_embeddings(self) -> torch.Tensor:
        return self.embed_texts(["a"])[:0]

    def step(self, timings: dict[str, float] | None = None) -> Step:
        """Embeddings and what is computed of them for one batch; on a GPU there is one wait for all of it.

        Args:
            timings: seconds per stage ("text", "preprocess", "image"), which are increased.

        Raises:
            RuntimeError: the encoder is on a GPU and this process was forked since it was made.
        """
        self._check_process()  # before anything of CUDA is touched, which has a message of its own
        return HostStep(self, timings) if self._way is None else GpuStep(self, self._way, timings)

    def embed_ids(
        self, ids: Sequence[Ids], *, exact: bool = False, timings: dict[str, float] | None = None
    ) -> torch.Tensor:
        """Unit embeddings of token id lists that fit the context.

        Args:
            ids: N lists, with start and end tokens.
            exact: in float32 even where `precision` is "guarded".
            timings: "text" is increased by the seconds spent.

        Returns:
            float32 [N, D] on the CPU.

        Raises:
            ValueError: a list is longer than the context, or a number in it is no row of the model's table; names its
                index. On a GPU either would end the process's use of it.
        """
        check_ids(self.tokens, ids)
        step = self.step(timings)
        return step.finish(step.texts(ids, exact=exact))[0]

    def embed_regions(
        self,
        pictures: Sequence[PixelSource],
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
        step = self.step(timings)
        return step.finish(step.regions(pictures, regions, exact=exact))[0]

    def known_texts(self, ids: Sequence[Ids], exact: bool) -> dict[Ids, torch.Tensor]:
        """The embeddings of different token id lists that are in memory."""
        level = self.forward_for(exact).precision
        found = self.cache.get_rows([("text", level, row) for row in ids])
        return {row: value for row, value in zip(ids, found, strict=True) if value is not None}

    def keep_texts(self, ids: Sequence[Ids], values: torch.Tensor, exact: bool) -> None:
        """Puts embeddings [N, D], on the CPU, into the cache, but for those that are not finite."""
        level = self.forward_for(exact).precision
        ids, values = finite_rows(ids, values)
        self.cache.put_rows([("text", level, row) for row in ids], values)

    def known_regions(
        self, pictures: Sequence[PixelSource], regions: Sequence[tuple[int, Region]], exact: bool
    ) -> tuple[list[tuple[Hashable, Region]], dict[tuple[Hashable, Region], torch.Tensor], int]:
        """Regions by their picture's key, [K], and the embeddings of those that are in memory or in the file.

        The number at the end is how many of these are float32.
        """
        exact = self._exact(exact)
        content = content_keys(pictures, regions, self.used_threads(), self._way)
        places = [(content[index], box) for index, box in regions]
        return places, *self._cached_regions(list(dict.fromkeys(places)), exact)

    def remember_regions(self, places: Sequence[tuple[Hashable, Region]], embeddings: torch.Tensor) -> None:
        """Puts given float32 embeddings [K, D] into the cache, under the pictures' keys and boxes."""
        self.keep_regions(places, embeddings, exact=True)

    def keep_regions(
        self, places: Sequence[tuple[Hashable, Region]], values: torch.Tensor, exact: bool, again: bool = False
    ) -> None:
        """Puts embeddings [K, D], on the CPU, into the cache and its file, but for those that are not finite.

        Those of a second look (`again`) serve further second looks alone: what a completion gets must not depend on
        which others were scored before.
        """
        level = _AGAIN if again else self.forward_for(exact).precision
        places, values = finite_rows(places, values)
        keys: list[Hashable] = [("image", level, *place) for place in places]
        self.cache.put_rows(keys, values)
        if self.cache.store is not None and not again:
            self.cache.put_stored(dict(zip(keys, values, strict=True)), self.digest)

    @cached_property
    def digest(self) -> bytes:
        """Tells this model's embeddings of images from any other's: its weights and its preprocessing."""
        digest = hashlib.sha256(repr(self.preprocess).encode())
        for name, value in sorted(self._model.state_dict().items()):
            content = value.detach().to("cpu").contiguous().flatten().view(torch.uint8)
            digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
            digest.update(content.numpy().data)
        return digest.digest()

    @cached_property
    def _way(self) -> GpuWay | None:
        return way_to(self.device)

    @cached_property
    def _size(self) -> int:
        return int(self.embed_texts(["a"]).shape[1])

    def _cached_regions(
        self, places: list[tuple[Hashable, Region]], exact: bool
    ) -> tuple[dict[Any, torch.Tensor], int]:
        """Cached embeddings, from memory and then from the file. A float32 one also serves for reduced precision."""
        found: dict[Any, torch.Tensor] = {}
        counts = []
        for level in ("float32", _AGAIN if exact else self._forwards[False].precision):
            rest = [place for place in places if place not in found]
            keys: list[Hashable] = [("image", level, *place) for place in rest]
            values = self.cache.get_rows(keys)
            found.update((place, value) for place, value in zip(rest, values, strict=True) if value is not None)
            if self.cache.store is not None and level != _AGAIN:
                unknown = {key: place for key, place in zip(keys, rest, strict=True) if place not in found}
                stored = self.cache.get_stored(list(unknown), self.digest, self._size)
                found.update((unknown[key], value) for key, value in stored.items())
            counts.append(len(found))
        return found, counts[0]

    def __reduce__(self) -> Any:
        raise TypeError(
            f"encoder {self.name!r} cannot be pickled: it holds a model, threads' locks and a cache. Send "
            "dpad_fast.ScorerSpec(config, encoder=NAME_OR_FOLDER) and call its build() where the scorer is needed"
        )

    def forward_for(self, exact: bool) -> Forward:
        """What computes embeddings, in float32 if `exact`.

        Raises:
            RuntimeError: the encoder is on a GPU and this process was forked since it was made.
        """
        return self._forwards[self._exact(exact)]

    def guards(self, exact: bool) -> bool:
        """Whether embeddings are a first look, so that a completion whose embeddings are not finite is near."""
        return self.precision == "guarded" and self.forward_for(exact).precision != "float32"

    def _exact(self, exact: bool) -> bool:
        self._check_process()
        return True in self._forwards and (exact or False not in self._forwards)

    def _check_process(self) -> None:
        if self.device.type == "cuda" and self._process != os.getpid():
            raise RuntimeError(
                f"encoder {self.name!r} is on a GPU and was made before this process was forked, which CUDA does not "
                "survive; build it here, from a dpad_fast.ScorerSpec, or start the process by 'spawn'"
            )

    def used_threads(self) -> int:
        """CPU threads of a call now."""
        return torch.get_num_threads() if self.threads is None else self.threads
