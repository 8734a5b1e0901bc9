"""`load_encoder`: a CLIP-like model by name or folder."""

from __future__ import annotations

import os
import sys
from typing import Any

import torch

from dpad_fast import checkpoints, hub
from dpad_fast._native.gpu_errors import is_gpu_failure
from dpad_fast.clip.cache import EmbeddingCache
from dpad_fast.clip.encoder import PRECISIONS, ClipEncoder

BACKENDS = ("transformers", "open_clip")


def load_encoder(
    name_or_path: str | os.PathLike[str] = "openai/clip-vit-base-patch32",
    *,
    backend: str = "transformers",
    device: str | torch.device = "cpu",
    precision: str = "guarded",
    cache: EmbeddingCache | None = None,
    threads: int | None = None,
    rows_at_once: int | None = None,
) -> ClipEncoder:
    """Loads a frozen CLIP-like model.

    Args:
        name_or_path: a folder, a name on the Hugging Face hub, "shapes" (or "clip", the small model that comes with the
            package), or for open_clip "ARCHITECTURE" with a local folder or hub name, or
            "ARCHITECTURE/PRETRAINED-TAG-OR-FILE".
        backend: "transformers" or "open_clip".
        device: where it runs.
        precision: "float32", "bfloat16", or "guarded".
        cache: see `ClipEncoder`; `EmbeddingCache(folder=...)` keeps the embeddings of images on disk.
        threads: CPU threads; None: as many as torch uses when called (under Ray that is one).
        rows_at_once: bounds the memory of the towers, see `ClipEncoder.from_transformers`.

    Raises:
        ValueError: an unknown backend or precision, a device that is not there, or a model that cannot be loaded;
            says what could be done.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r:.80}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r:.80}")
    place = find_device(device)
    name = os.fspath(name_or_path)
    small = checkpoints.small_encoder(name)
    if small is not None:
        if backend != "transformers":
            raise ValueError(f"encoder {name!r} comes with this package for backend 'transformers', got {backend!r}")
        name = str(checkpoints.checkpoint(small))
    from safetensors import SafetensorError

    settings: dict[str, Any] = {"precision": precision, "device": place, "cache": cache}
    settings.update(threads=threads, rows_at_once=rows_at_once)
    try:
        if backend == "transformers":
            return ClipEncoder.from_transformers(*_transformers(name), **settings)
        return ClipEncoder.from_open_clip(*_open_clip(name), **settings)
    except (
        OSError,
        ImportError,
        RuntimeError,
        KeyError,
        TypeError,
        AttributeError,
        ValueError,
        SafetensorError,
    ) as error:
        if is_gpu_failure(error):
            raise
        raise ValueError(
            f"encoder {name!r:.80} cannot be loaded with backend {backend!r:.80}: {_first_line(error)} "
            "(give a local folder, a model in the local Hugging Face cache, or 'shapes', the small model that "
            "comes with this package; on the command line --encoder and --backend)"
        ) from error


def find_device(device: str | torch.device) -> torch.device:
    """The device, if it is there; an error names the device and not the encoder."""
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device {device!r} is none that torch knows: {_first_line(error)}") from None
    if place.type == "cuda":
        count = torch.cuda.device_count()
        if (place.index or 0) >= count:
            raise ValueError(f"device {str(device)!r} is not there: torch finds {count or 'no'} CUDA device(s)")
    elif place.type == "meta":
        raise ValueError("device 'meta' holds no numbers: give cpu or cuda")
    elif place.type != "cpu":
        try:
            torch.empty(1, device=place)
        except (RuntimeError, AssertionError, ImportError, AttributeError) as error:  # each fails in its own way
            if is_gpu_failure(error):
                raise
            raise ValueError(f"device {str(device)!r} is not there: torch has no {place.type} at work here") from None
    return place


def _transformers(name: str) -> tuple[Any, Any]:
    if sys.flags.optimize > 1:
        raise ValueError("transformers makes its models with docstrings, which python -OO drops; run python -O or none")
    local = hub.only_local(name, checkpoints.ENCODERS)
    from transformers import AutoConfig, AutoModel, AutoProcessor

    AutoConfig.from_pretrained(name, local_files_only=local)  # one small file first: what is missing is missing at once
    processor = AutoProcessor.from_pretrained(name, local_files_only=local)
    with hub.without_bars():
        model = AutoModel.from_pretrained(name, dtype=torch.float32, local_files_only=local)
    if not hasattr(model, "get_text_features") or not hasattr(model, "get_image_features"):
        raise ValueError(f"{type(model).__name__} has no text and image towers")
    return model, processor


def _open_clip(name: str) -> tuple[Any, Any, Any]:
    import open_clip

    architecture, pretrained = name, None
    if ":" not in name and not os.path.isdir(name) and "/" in name:
        architecture, pretrained = name.split("/", 1)
    elif os.path.isdir(name):
        architecture = f"local-dir:{name}"
    if pretrained is None and ":" not in architecture:
        raise ValueError(
            "an architecture alone has random weights; give ARCHITECTURE/PRETRAINED, a folder or hf-hub:NAME"
        )
    if name.startswith("hf-hub:"):
        hub.only_local(name.removeprefix("hf-hub:"), (), ("open_clip_config.json",))
    elif pretrained is not None and not os.path.exists(pretrained):
        source = open_clip.pretrained.get_pretrained_cfg(architecture, pretrained).get("hf_hub", "")
        if source:
            owner, model_name, file = [*source.split("/"), ""][:3]
            names = (file,) if file else ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
            hub.only_local(f"{owner}/{model_name}", (), names)
    model, _, transform = open_clip.create_model_and_transforms(architecture, pretrained=pretrained)
    return model, transform, open_clip.get_tokenizer(architecture)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
