"""The reward stage on a GPU: outputs, seconds, launches, copies and waits, against what users write on transformers.

A disagreement is recorded and the run goes on: a machine with a GPU is at hand for minutes. `--device cpu` runs the
same on the CPU, so that all of it can be tried where there is no GPU.
"""

from __future__ import annotations

import argparse
import copy
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import dpad_fast as df
from bench import results
from bench.reward import work as ways
from bench.reward.race import Contestant, similarities, unique

LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
Way = Callable[[ways.Work], Any]


class HandWrittenOnGpu(ways.HandWritten):
    """`HandWritten` with the model on a device; pixels by transformers' fast processor on the CPU or on the device."""

    def __init__(self, model: Any, processor: Any, device: torch.device, dtype: torch.dtype, pixels_there: bool):
        super().__init__(copy.deepcopy(model).to(device, dtype), processor)
        self.device, self.dtype = device, dtype
        self.options = {"device": device} if pixels_there else {}

    def __call__(self, work: ways.Work) -> torch.Tensor:
        """float32 [N, 2] on the CPU, S1 and S2."""
        for text, solution in zip(work.texts, work.solutions, strict=True):
            ways.discrete(text, solution)
        views, places = ways.views_of(work)
        with torch.inference_mode():
            made = self.processor.image_processor(list(views.values()), return_tensors="pt", **self.options)
            pixels = made["pixel_values"].to(self.device, self.dtype)
            images = ways.unit(self.model.get_image_features(pixel_values=pixels))
            captions = list(dict.fromkeys(ways.caption(text) for text in work.texts))
            ids = self.processor.tokenizer(captions, padding=True, return_tensors="pt").to(self.device)
            texts = ways.unit(self.model.get_text_features(**ids))
            at = {place: i for i, place in enumerate(views)}
            rows = torch.tensor([captions.index(ways.caption(text)) for text in work.texts]).to(self.device)
            sides = [images[torch.tensor([at[pair[side]] for pair in places]).to(self.device)] for side in (0, 1)]
            return torch.stack([(texts[rows] * side).sum(-1) for side in sides], dim=1).float().cpu()


class AsBytes:
    """Ours with pictures as JPEG bytes, which are decoded within the call."""

    def __init__(self, contestant: Contestant) -> None:
        self.contestant = contestant
        self.known: dict[int, bytes] = {}

    def __call__(self, work: ways.Work) -> df.ScoreBatch:
        """Scores the same pictures, encoded."""
        return self.contestant(ways.Work(work.texts, work.solutions, [self.known[id(p)] for p in work.pictures]))

    def prepare(self, work: ways.Work) -> None:
        """Encodes what is not encoded yet; outside of the timing."""
        self.contestant.prepare(work)
        for picture in unique(work):
            if id(picture) not in self.known:
                file = io.BytesIO()
                picture.save(file, "JPEG", quality=90)
                self.known[id(picture)] = file.getvalue()


def contestants(model: Any, slow: Any, fast: Any, device: torch.device, console: Console) -> dict[str, Any]:
    """Ours in each precision, cold and with the images known, and what users write."""
    found: dict[str, Any] = {}
    for precision in ("float32", "bfloat16", "guarded"):
        began = time.perf_counter()
        encoder = df.ClipEncoder.from_transformers(model, slow, precision=precision, device=device)
        took = time.perf_counter() - began
        console.print(f"{precision}: {encoder.forward}, margin {encoder.margin:.1e}, made in {took:.1f} s")
        for known in (False, True):
            found[f"dpad_fast {precision}, {'images known' if known else 'cold'}"] = Contestant(encoder, known)
    found["dpad_fast guarded, cold, JPEG bytes"] = AsBytes(found["dpad_fast guarded, cold"])
    for dtype in (torch.float32, torch.bfloat16):
        for there in (False, True):
            name = f"hand-written, {str(dtype).removeprefix('torch.')}, {'GPU' if there else 'CPU'} pixels"
            found[name] = HandWrittenOnGpu(model, fast, device, dtype, there)
    return found


def compared(name: str, way: Way, work: ways.Work, plain: torch.Tensor) -> dict[str, Any]:
    """How a contestant's output differs from the plain way's in float32 on the CPU."""
    if isinstance(way, AsBytes):  # JPEG is lossy: these are other pictures
        return {"error": "", "wrong": "", "recomputed": ""}
    if hasattr(way, "prepare"):
        way.prepare(work)
    found = way(work)
    decisions, truth = None, plain[:, 0] > plain[:, 1]
    if isinstance(found, df.ScoreBatch):
        decisions, found = found.terms["discriminative"].bool(), similarities(found)
    decisions = found[:, 0] > found[:, 1] if decisions is None else decisions
    scorer = way.scorer if isinstance(way, Contestant) else None
    again = f"{scorer.recomputed} of {scorer.compared}" if scorer is not None and scorer.compared else ""
    return {
        "error": f"{float((found - plain).abs().max()):.1e}",
        "wrong": int((decisions != truth).sum()),
        "recomputed": again,
    }


def profiled(way: Way, work: ways.Work) -> dict[str, Any]:
    """Launches, copies and waits of one call, and milliseconds of the GPU."""
    from torch.profiler import ProfilerActivity, profile

    if hasattr(way, "prepare"):
        way.prepare(work)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        way(work)
        torch.cuda.synchronize()
    events = found.key_averages()

    def count(*names: str) -> int:
        return sum(event.count for event in events if event.key in names)

    busy = sum(event.self_device_time_total for event in events) / 1e3
    return {
        "launches": count(*LAUNCHES),
        "copies": count("cudaMemcpyAsync", "cudaMemcpy"),
        "waits": count(*WAITS),
        "gpu_ms": f"{busy:.2f}",
    }


def race(args: argparse.Namespace, console: Console) -> int:
    """Compare, time in turns, profile, write; 1 where a guarded or float32 decision was wrong."""
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        console.print(f"bench.reward: torch {torch.__version__} finds no GPU; nothing was timed")
        return 2
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    model, slow, fast = ways.make_clip()
    work = ways.make_work([ways.photograph(i) for i in range(args.queries)], args.queries * ways.GROUP, seed=0)
    plain = ways.HandWritten(model, slow)(work)
    ways_to = contestants(model, slow, fast, device, console)
    facts = {name: compared(name, way, work, plain) for name, way in ways_to.items()}
    times: dict[str, list[float]] = {name: [] for name in ways_to}
    for turn in range(args.runs + 2):
        fresh = ways.make_work(unique(work), len(work.texts), seed=1000 + turn)
        for name, way in ways_to.items():
            if hasattr(way, "prepare"):
                way.prepare(fresh)
            wait()
            began = time.perf_counter()
            way(fresh)
            wait()
            if turn > 1:
                times[name].append(1e3 * (time.perf_counter() - began))
    rows = []
    for name, way in ways_to.items():
        counts = profiled(way, work) if device.type == "cuda" else dict.fromkeys(_COUNTS, "")
        middle = statistics.median(times[name])
        rows.append(
            {"contestant": name, "p50_ms": f"{middle:.2f}", "least_ms": f"{min(times[name]):.2f}"}
            | facts[name]
            | counts
            | {"device": torch.cuda.get_device_name() if device.type == "cuda" else results.device()}
        )
        console.print("  ".join(f"{key} {value}" for key, value in rows[-1].items() if value != ""))
    if args.out:
        results.write("reward-gpu", rows, Path(args.out))
    bad = [row["contestant"] for row in rows if row["wrong"] and row["contestant"].startswith(_EXACT)]
    console.print(f"decisions that differ: {', '.join(bad)}" if bad else "decisions agree")
    return 1 if bad else 0


_COUNTS = ("launches", "copies", "waits", "gpu_ms")
_EXACT = ("dpad_fast guarded", "dpad_fast float32")
