"""Lower bound of the time: the multiply-adds that cannot be avoided, divided by the rate of the best product."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

import dpad_fast as df
from bench.reward import work as ways
from dpad_fast.clip.tower.products import NativeProducts, has_amx
from dpad_fast.clip.tower.weights import Affine

# The shapes of ViT-B/32's layers over 32 images, and of the text tower over some 2,000 tokens.
SHAPES = ((1600, 768, 2304), (1600, 768, 3072), (1600, 3072, 768), (2048, 512, 2048), (2048, 2048, 512))
FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile")


def cpu_name() -> str:
    """Model and the instruction sets that matter here."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown processor"
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    flags = named.get("flags", "").split()
    has = ", ".join(f"{'' if name in flags else 'no '}{name}" for name in FEATURES)
    return f"{named.get('model name', '?')} (family {named.get('cpu family')}, model {named.get('model')}; {has})"


def rates(threads: int) -> dict[str, float]:
    """GFLOP/s of each kind of product, over the layers' shapes."""
    found: dict[str, list[float]] = {}
    generator = torch.Generator().manual_seed(0)
    implementations = {
        "float32, this package": NativeProducts("float32"),
        "int16, this package": NativeProducts("int16"),
    }
    if has_amx():
        implementations |= {"float32 on AMX": NativeProducts("digits3"), "int16 on AMX": NativeProducts("digits2")}
    for rows, depth, columns in SHAPES:
        x, weight = torch.randn(rows, depth, generator=generator), torch.randn(columns, depth, generator=generator)
        bias = torch.zeros(columns)
        calls: dict[str, Callable[[], Any]] = {"float32, torch": lambda x=x, w=weight, b=bias: F.linear(x, w, b)}
        low = [value.bfloat16() for value in (x, weight, bias)]
        calls["bfloat16, torch"] = lambda low=low: F.linear(*low)
        for name, products in implementations.items():
            layer = products.prepare([Affine(weight, bias)])
            calls[name] = lambda products=products, layer=layer, x=x: products.linear(x, layer, threads)
        for name, call in calls.items():
            found.setdefault(name, []).append(2e-9 * rows * depth * columns / _seconds(call))
    return {name: len(values) / sum(1 / value for value in values) for name, values in found.items()}


def _seconds(call: Callable[[], Any]) -> float:
    times = []
    with torch.inference_mode():
        for _ in range(8):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def floor_rows(encoder: df.ClipEncoder, work: ways.Work, rate: dict[str, float]) -> list[dict[str, Any]]:
    """Per kind of product: its name, GFLOP/s, and the floor in seconds, cold and with the images known.

    Counted: the linear layers of every distinct caption cut at its end token, without padding, and of every distinct
    region; no attention, no norm, no sharing of prefixes and no shortcut in the last layer, which this package has.
    """
    config = encoder._model.config
    captions = {ways.caption(text) for text in work.texts}
    tokens = sum(len(ids) for ids in encoder.tokens.encode(sorted(captions)))
    text, vision = config.text_config, config.vision_config
    places = (vision.image_size // vision.patch_size) ** 2
    regions = len({(id(p), ways.region(s)) for p, s in zip(work.pictures, work.solutions, strict=True)})
    regions += len({id(p) for p in work.pictures})
    text_work = 2e-9 * tokens * _weights(text)
    patches = 2e-9 * regions * places * 3 * vision.patch_size**2 * vision.hidden_size
    image_work = 2e-9 * regions * (places + 1) * _weights(vision) + patches
    return [
        {"products": name, "gflops": value, "cold_s": (text_work + image_work) / value, "known_s": text_work / value}
        for name, value in rate.items()
    ]


def _weights(tower: Any) -> float:
    return float(tower.num_hidden_layers * (4 * tower.hidden_size**2 + 2 * tower.hidden_size * tower.intermediate_size))
