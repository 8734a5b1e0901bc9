"""Frozen CLIP-like encoders from transformers and open_clip, behind one class."""

from dpad_fast.clip.cache import EmbeddingCache
from dpad_fast.clip.encoder import ClipEncoder
from dpad_fast.clip.load import load_encoder
from dpad_fast.clip.preprocess import Preprocess

__all__ = ["ClipEncoder", "EmbeddingCache", "Preprocess", "load_encoder"]
