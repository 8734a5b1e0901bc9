"""Segment Anything 2, 2.1 and 3 through transformers: boxes and points in, the mask of the highest score out.

As in the released evaluation of Seg-Zero and DPAD, the model is asked for several masks, and the mask of the highest
predicted IoU is taken. On a CPU a larger batch changes the order of sums. So each picture and each prompt goes by
itself there unless `batch` says otherwise, and the results equal those of transformers for one picture and one prompt
to the bit.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from dpad_fast import hub
from dpad_fast.cached import cached_property
from dpad_fast.clip.cache import EmbeddingCache
from dpad_fast.clip.images import Picture, find_pictures
from dpad_fast.clip.load import find_device
from dpad_fast.row_errors import RowErrors
from dpad_fast.segmenters.prompts import Prompt, prompts_of
from dpad_fast.types import BoolMask, Completion, Size

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CACHE_BYTES = 1 << 30  # sixty pictures of SAM 2 large in float32
_BATCH = 8

# transformers' class by the `model_type` of the configuration; the hub's checkpoints are those of the video models.
_CLASSES = {
    "sam2": ("Sam2Model", "Sam2Processor"),
    "sam2_video": ("Sam2Model", "Sam2Processor"),
    "sam3": ("Sam3TrackerModel", "Sam3TrackerProcessor"),
    "sam3_video": ("Sam3TrackerModel", "Sam3TrackerProcessor"),
    "sam3_tracker": ("Sam3TrackerModel", "Sam3TrackerProcessor"),
}


class SamSegmenter:
    """A promptable model as a segmenter.

    Args:
        model: transformers' `Sam2Model` or `Sam3TrackerModel`, where it should run; it is set to evaluation.
        processor: its processor.
        batch: pictures, and prompts on one picture, at a time; None: 1 on the CPU, 8 elsewhere. On a CPU more than 1
            changes the last bits.
        cache: keeps pictures' embeddings; None: one of 1 GB in the device's memory. With a folder they stay on disk.

    Raises:
        ValueError: `batch` is no whole number of at least 1.
    """

    def __init__(
        self, model: Any, processor: Any, batch: int | None = None, cache: EmbeddingCache | None = None
    ) -> None:
        self.model, self.processor = model.eval(), processor
        if batch is not None and (type(batch) is not int or batch < 1):
            raise ValueError(f"batch must be a whole number of at least 1, or None, got {batch!r:.80}")
        self.batch = batch or (1 if self.device.type == "cpu" else _BATCH)
        self.cache = EmbeddingCache(CACHE_BYTES) if cache is None else cache
        self._shapes: list[torch.Size] = []
        self._made_by: tuple[Any, ...] | None = None

    @classmethod
    def load(
        cls,
        name: str | os.PathLike[str],
        device: str | torch.device = "cpu",
        dtype: str = "float32",
        batch: int | None = None,
        cache: EmbeddingCache | None = None,
    ) -> SamSegmenter:
        """Loads a model.

        Args:
            name: a folder, or a name on the Hugging Face hub.
            device: where it runs.
            dtype: "float32", "bfloat16" or "float16".
            batch: see the class.
            cache: see the class.

        Raises:
            ValueError: it cannot be loaded, or is none of these models; says what could be done.
        """
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r:.80}")
        place = find_device(device)
        source = os.fspath(name)
        from safetensors import SafetensorError

        try:
            model, processor = _load(source, DTYPES[dtype])
        except (OSError, ImportError, RuntimeError, KeyError, TypeError, ValueError, SafetensorError) as error:
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(
                f"segmenter {source!r:.80} cannot be loaded: {said} (give a local folder, or a model in the local "
                "Hugging Face cache: sam2:NAME_OR_FOLDER)"
            ) from error
        made = cls(model.to(place), processor, batch, cache)
        if cache is None:  # a cache of the caller's cannot be made again elsewhere
            kept = os.path.abspath(source) if os.path.isdir(source) else source
            made._made_by = (kept, str(device), dtype, batch)
        return made

    def __reduce__(self) -> Any:
        """Loaded again where it is unpickled."""
        if self._made_by is None:
            raise TypeError("this SamSegmenter cannot be pickled, for it holds a model; SamSegmenter.load makes one")
        return type(self).load, self._made_by

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        found: torch.device = self.model.device
        return found

    def segment(
        self, answers: Sequence[Completion], images: Sequence[Any], sizes: Sequence[Size]
    ) -> list[BoolMask | None]:
        """See `Segmenter.segment`. Each object is one prompt: its box, points on it, and points that are not on it.

        A picture may have another size than the mask: both are squashed to the model's square.
        """
        wanted = [prompts_of(answer) for answer in answers]
        used = [i for i, prompts in enumerate(wanted) if prompts]
        pictures, places = _pictures(images, used)
        rows: dict[int, list[tuple[int, Prompt]]] = {}
        for i, place in zip(used, places, strict=True):
            rows.setdefault(place, []).extend((i, prompt) for prompt in wanted[i])
        found: list[BoolMask | None] = [None] * len(answers)
        with torch.inference_mode():
            for start in range(0, len(pictures), self.batch):
                some = pictures[start : start + self.batch]
                for place, embedding in enumerate(self._embeddings(some), start):
                    self._decode(embedding, rows[place], sizes, found)
        return found

    def _embeddings(self, pictures: Sequence[Picture]) -> list[list[torch.Tensor]]:
        """The feature maps of each picture, each [1, C, h, w]; those in the cache are not made again."""
        keys: list[Hashable] = [("sam", self._dtype_name, picture.key) for picture in pictures]
        known: dict[Hashable, torch.Tensor] = {}
        for key in dict.fromkeys(keys):
            value = self.cache.get(key)
            if value is not None:
                known[key] = value
        if self.cache.store is not None:
            missing = [key for key in dict.fromkeys(keys) if key not in known]
            known.update(self.cache.get_stored(missing, self._digest))
        new = {key: picture for key, picture in zip(keys, pictures, strict=True) if key not in known}
        if new:
            fresh: dict[Hashable, torch.Tensor] = dict(zip(new, self._embed(list(new.values())), strict=True))
            for key, value in fresh.items():
                self.cache.put(key, value)
            self.cache.put_stored(fresh, self._digest if self.cache.store is not None else b"")
            known.update(fresh)
        return [self._maps(known[key]) for key in keys]

    def _embed(self, pictures: Sequence[Picture]) -> list[torch.Tensor]:
        """Each picture's feature maps in one row of numbers, in the model's dtype."""
        inputs = self.processor(images=[_pil(picture) for picture in pictures], return_tensors="pt")
        pixels = inputs["pixel_values"].to(self.device, self.model.dtype)
        maps = self.model.get_image_embeddings(pixels)
        self._shapes = [part.shape[1:] for part in maps]
        return [torch.cat([part[i].flatten() for part in maps]) for i in range(len(pictures))]

    def _maps(self, row: torch.Tensor) -> list[torch.Tensor]:
        if not self._shapes:  # all embeddings came from the disk; a small picture gives the shapes
            self._embed([Picture(Image.new("RGB", (8, 8)), "a picture")])
        parts = torch.split(row.to(self.device, self.model.dtype), [shape.numel() for shape in self._shapes])
        return [part.reshape(1, *shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def _decode(
        self,
        embedding: list[torch.Tensor],
        rows: Sequence[tuple[int, Prompt]],
        sizes: Sequence[Size],
        found: list[BoolMask | None],
    ) -> None:
        """Adds the masks of one picture's prompts to those of their answers."""
        # Prompts of unequal length would be padded, and other tokens would attend to the padding.
        groups: dict[Any, list[tuple[int, Prompt]]] = {}
        for i, prompt in rows:
            groups.setdefault((prompt.box is None, len(prompt.points), sizes[i]), []).append((i, prompt))
        for (_, _, size), group in groups.items():
            for start in range(0, len(group), self.batch):
                some = group[start : start + self.batch]
                for (i, _), mask in zip(some, self._masks(embedding, [p for _, p in some], size), strict=True):
                    before = found[i]
                    found[i] = mask if before is None else before | mask

    def _masks(self, embedding: list[torch.Tensor], prompts: Sequence[Prompt], size: Size) -> list[BoolMask]:
        given: dict[str, Any] = {}
        if prompts[0].points:
            given["input_points"] = [[[list(point) for point in prompt.points] for prompt in prompts]]
            given["input_labels"] = [[list(prompt.labels) for prompt in prompts]]
        if prompts[0].box is not None:
            given["input_boxes"] = [[list(prompt.box) for prompt in prompts if prompt.box is not None]]
        shape = [[size[1], size[0]]]
        inputs = self.processor(original_sizes=shape, return_tensors="pt", **given)
        inputs = {name: inputs[name].to(self.device) for name in given}
        output = self.model(image_embeddings=list(embedding), multimask_output=True, **inputs)
        best = output.iou_scores[0].argmax(dim=-1)  # [P]
        chosen = output.pred_masks[0][torch.arange(len(prompts), device=best.device), best]  # [P, h, w]
        # Resized in float32, whatever the model computes in.
        masks = self.processor.post_process_masks([chosen.float()[:, None]], shape)[0][:, 0]
        return list(np.asarray(masks.cpu().numpy(), dtype=np.bool_))

    @property
    def _dtype_name(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    @cached_property
    def _digest(self) -> bytes:
        """Tells this model's embeddings from any other's: its weights and its preprocessing."""
        digest = hashlib.sha256(repr(self.processor.image_processor).encode())
        for name, value in sorted(self.model.state_dict().items()):
            content = value.detach().to("cpu").contiguous().flatten().view(torch.uint8)
            digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
            digest.update(content.numpy().data)
        return digest.digest()


def _load(name: str, dtype: torch.dtype) -> tuple[Any, Any]:
    local = hub.only_local(name, ())
    import transformers

    settings, _ = transformers.PretrainedConfig.get_config_dict(name, local_files_only=local)
    kind = str(settings.get("model_type"))
    if kind not in _CLASSES:
        raise ValueError(f"its model_type is {kind!r:.80}; known: {', '.join(_CLASSES)}")
    model, processor = _CLASSES[kind]
    if not hasattr(transformers, model):
        raise ValueError(f"transformers {transformers.__version__} has no {model}; a newer release has")
    made = getattr(transformers, model).from_pretrained(name, dtype=dtype, local_files_only=local)
    return made, getattr(transformers, processor).from_pretrained(name, local_files_only=local)


def _pictures(images: Sequence[Any], used: Sequence[int]) -> tuple[list[Picture], list[int]]:
    """The distinct pictures of some rows, named by their first rows, and the picture of each row."""
    errors = RowErrors("row")
    pictures, places = find_pictures([images[i] for i in used], None, errors)
    for row in errors.rows():
        message = str(errors.messages(len(used))[row])
        raise ValueError(message.replace(f"images[{row}]", f"images[{used[row]}]", 1))
    for place, picture in enumerate(pictures):
        picture.name = f"images[{used[places.index(place)]}]"
    return pictures, places


def _pil(picture: Picture) -> Image.Image:
    """The picture upright and in its own mode: the processor decides what becomes of alpha and palettes."""
    found = picture.in_own_mode()
    if isinstance(found, Image.Image):
        return found
    return Image.fromarray(np.ascontiguousarray(found.cpu().numpy()))
