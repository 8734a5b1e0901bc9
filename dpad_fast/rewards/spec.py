"""`ScorerSpec`: the description of a scorer, which can be sent to other processes where the scorer itself cannot."""

from __future__ import annotations

import operator
import os
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from dpad_fast.checkpoints import shipped
from dpad_fast.rewards.config import RewardConfig
from dpad_fast.rewards.scorer import RewardScorer
from dpad_fast.segmenters.choose import absolute, make_segmenter


@dataclass(frozen=True)
class ScorerSpec:
    """Names everything that a `RewardScorer` needs. It can be pickled, and scorers built from it can, through it.

    Two scorers built from equal specs give equal rewards, bit for bit, on processors of one kind. Folders that exist
    are made absolute, so that a process that runs elsewhere finds them; a name that the package ships has precedence
    over a folder of the same name, which is `./NAME`. Equal specs hash alike.

    Attributes:
        config: which terms, and how.
        encoder: a name or folder for `load_encoder`; None where no term needs an encoder.
        backend: "transformers" or "open_clip".
        device: where the encoder and the configuration's segmenter run, such as "cpu" or "cuda:1".
        precision: "float32", "bfloat16" or "guarded".
        threads: CPU threads; None: as many as torch uses when called.
        cache: a folder that keeps embeddings of images; None: memory only.
        rows_at_once: bounds the memory of the encoder's towers, see `ClipEncoder.from_transformers`.

    Raises:
        ValueError: a field is of the wrong kind, or the configuration needs an encoder and none is named.
    """

    config: RewardConfig
    encoder: str | os.PathLike[str] | None = None
    backend: str = "transformers"
    device: str = "cpu"
    precision: str = "guarded"
    threads: int | None = None
    cache: str | os.PathLike[str] | None = None
    rows_at_once: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.config, RewardConfig):
            raise ValueError(f"config must be a RewardConfig, got {type(self.config).__name__}")
        if self.config.needs_encoder and self.encoder is None:
            raise ValueError("encoder is missing: the term 'discriminative' needs one; give a name or a folder")
        for name in ("encoder", "cache"):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, str | os.PathLike):
                wanted = "a name or a folder" if name == "encoder" else "a folder"
                raise ValueError(f"{name} must be {wanted}, got {type(value).__name__}, which no process can be sent")
            text = os.fspath(value)
            if not text:
                raise ValueError(f"{name} is empty; None is for none")
            if name == "cache" or (shipped(text) is None and os.path.isdir(text)):
                text = os.path.abspath(text)
            object.__setattr__(self, name, text)
        if not isinstance(self.device, str | torch.device) or self.device == "":
            raise ValueError(f"device must be a name such as 'cpu' or 'cuda:1', got {self.device!r:.80}")
        object.__setattr__(self, "device", str(self.device))
        for name in ("threads", "rows_at_once"):
            object.__setattr__(self, name, _whole(name, getattr(self, name)))
        if self.config.segmenter is not None:
            object.__setattr__(self, "config", self.config.replace(segmenter=absolute(self.config.segmenter)))

    def build(self) -> RewardScorer:
        """Loads the encoder and makes the scorer.

        Raises:
            ValueError: the encoder cannot be loaded; says why and what could be done.
        """
        from dpad_fast.clip import EmbeddingCache, load_encoder

        encoder = None
        if self.encoder is not None:
            encoder = load_encoder(
                self.encoder,
                backend=self.backend,
                device=self.device,
                precision=self.precision,
                threads=self.threads,
                cache=None if self.cache is None else EmbeddingCache(folder=self.cache),
                rows_at_once=self.rows_at_once,
            )
        segmenter = None
        if self.config.segmenter is not None:
            segmenter = make_segmenter(self.config.segmenter, device=self.device)
        scorer = RewardScorer(self.config, encoder, segmenter)
        if encoder is not None:
            scorer.rebuilt_by(partial(_rebuild, self), encoder)
        return scorer


def _whole(name: str, value: Any) -> int | None:
    if value is None:
        return None
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, or None, got {value!r:.80}")
    return number


def _rebuild(spec: ScorerSpec, config: RewardConfig) -> RewardScorer:
    return replace(spec, config=config).build()
