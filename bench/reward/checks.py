"""Checks beside the timing of the reward stage: equality over many completions, and memory and cost as N grows."""

from __future__ import annotations

import argparse
import ctypes
import gc
import io
import multiprocessing
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

import dpad_fast as df
from bench.reward import work as ways
from dpad_fast.testing import rewards as shared

PICTURES = 16
_SINGLE = 32
_GPU_SAME = 5e-6  # of float32 on a GPU, whose products add in an order that depends on the shapes
_CHUNK = 1000


def equality(args: argparse.Namespace, console: Console) -> int:
    """Terms, similarities and decisions of N completions; every tenth is damaged in some way.

    On a device only what is computed there: similarities and decisions, against the model itself on that device.
    """
    torch.set_num_threads(args.threads)
    model, slow, _ = ways.make_tiny() if args.tiny else ways.make_clip()
    pictures = [ways.photograph(i) for i in range(PICTURES)]
    words = shared.WORDS if args.tiny else ways.WORDS
    work = ways.make_work(pictures, args.equality, words=words, seed=10_000 + args.seed)
    if args.device:
        console.print(f"{args.equality} completions, seed {args.seed}, on {args.device}")
        torch.backends.cudnn.allow_tf32 = False  # the patches of the model itself: float32 is the truth here
        return 0 if _similar(work, model.to(args.device), slow, args, console) else 1
    rng = random.Random(args.seed)
    hostile = {i: shared.hostile(rng) for i in range(0, args.equality, 10)}
    damaged = ways.Work([hostile.get(i, t) for i, t in enumerate(work.texts)], work.solutions, work.pictures)
    console.print(f"{args.equality} completions, seed {args.seed}, {len(hostile)} of them damaged")
    good = _discrete(damaged, console)
    return 0 if _similar(work, model, slow, args, console) and good else 1


def _discrete(work: ways.Work, console: Console) -> bool:
    """Preset dpad-released without its similarity, in one batch, against the authors' expressions one by one."""
    terms = ("think_format", "answer_format", "iou", "box_l1", "point_l1")
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad-released", terms=terms))
    batch = scorer.score(work.texts, work.solutions)
    mine = torch.stack([batch.terms[term] for term in terms], dim=1)
    theirs = torch.tensor([ways.discrete(t, s) for t, s in zip(work.texts, work.solutions, strict=True)])
    wrong = int((mine != theirs).any(dim=1).sum())
    console.print(f"discrete terms that differ: {wrong} of {len(work.texts)} completions")
    return wrong == 0


def _similar(work: ways.Work, model: Any, processor: Any, args: argparse.Namespace, console: Console) -> bool:
    """float32 and guarded against the model's own forward, in unpadded batches of one length."""
    plain = _model_itself(work, model, processor, args.threads)
    single = ways.one_at_a_time(work.part(_SINGLE), model, processor)
    same = 1e-6 if model.device.type == "cpu" else _GPU_SAME
    apart = float((plain[:_SINGLE] - single).abs().max())
    targets = [df.Target.parse(s, image_size=(ways.WIDTH, ways.HEIGHT)) for s in work.solutions]
    decisions = plain[:, 0] > plain[:, 1]
    table = Table("precision", "largest error of S1, S2", "decisions that differ", "recomputed", "margin")
    good = apart <= same
    for precision in ("float32", "guarded"):
        encoder = df.ClipEncoder.from_transformers(
            model, processor, precision=precision, threads=args.threads, device=args.device
        )
        scorer = df.RewardScorer(df.RewardConfig.preset("dpad", gate=False), encoder)
        parts = [
            scorer.score(work.texts[i : i + _CHUNK], targets[i : i + _CHUNK], work.pictures[i : i + _CHUNK])
            for i in track(range(0, len(work.texts), _CHUNK), precision, console=console)
        ]
        found = torch.cat([torch.stack([p.similarity["roi"], p.similarity["aoi"]], dim=1) for p in parts])
        wrong = int((torch.cat([part.terms["discriminative"] for part in parts]).bool() != decisions).sum())
        error = float((found - plain).abs().max())
        share = f"{scorer.recomputed} of {scorer.compared}" if scorer.compared else ""
        table.add_row(precision, f"{error:.2e}", str(wrong), share, f"{encoder.margin:.1e}")
        good &= wrong == 0 and (precision != "float32" or error <= same)
    console.print(f"the model one at a time against itself in batches, {_SINGLE} completions: {apart:.1e}")
    closest = float((plain[:, 0] - plain[:, 1]).abs().min())
    console.print(f"S1 - S2: standard deviation {float(plain.diff(dim=1).std()):.4f}, closest to 0 {closest:.1e}")
    console.print(table)
    return good


def _model_itself(work: ways.Work, model: Any, processor: Any, threads: int) -> torch.Tensor:
    """[N, 2] on the CPU, S1 and S2 by transformers' forward in float32, where the model is."""
    torch.set_num_threads(threads)
    device = model.device
    ids = [tuple(row) for row in processor.tokenizer([ways.caption(t) for t in work.texts])["input_ids"]]
    by_length: dict[int, list[tuple[int, ...]]] = {}
    for row in dict.fromkeys(ids):
        by_length.setdefault(len(row), []).append(row)
    views: dict[Any, torch.Tensor] = {}
    known: dict[tuple[int, ...], torch.Tensor] = {}
    places = []
    with torch.inference_mode():
        for rows in by_length.values():
            for start in range(0, len(rows), 128):
                chunk = rows[start : start + 128]
                values = model.get_text_features(input_ids=torch.tensor(chunk, device=device))
                known.update(zip(chunk, ways.unit(values).cpu(), strict=True))
        for solution, picture in zip(work.solutions, work.pictures, strict=True):
            box = ways.region(solution)
            places.append(((id(picture), box), (id(picture), None)))
            for place, view in zip(places[-1], (picture.crop(box), picture), strict=True):
                if place not in views:
                    pixels = processor.image_processor(images=view, return_tensors="pt")["pixel_values"]
                    views[place] = ways.unit(model.get_image_features(pixel_values=pixels.to(device)))[0].cpu()
    texts = torch.stack([known[row] for row in ids])
    return torch.stack([(texts * torch.stack([views[p[side]] for p in places])).sum(-1) for side in (0, 1)], dim=1)


def memory(args: argparse.Namespace, console: Console) -> int:
    """Peak memory above the loaded model, and the cost of a completion, from 128 completions to N.

    Each size in a process of its own: what making the inputs of one leaves in the heap would count for the next.
    """
    table = Table("completions", "pictures", "s", "ms a completion", "peak above the model, MB", "inputs of it, MB")
    worst = 0.0
    for count in [n for n in (128, 1024, 8192) if n < args.memory] + [args.memory]:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
            found = apart.submit(_memory_of, count, args.threads).result()
        worst = max(worst, found["peak"])
        cells = (f"{found['seconds']:.2f}", f"{1000 * found['seconds'] / count:.2f}")
        table.add_row(
            str(count), str(-(-count // ways.GROUP)), *cells, f"{found['peak']:.0f}", f"{found['inputs']:.0f}"
        )
    console.print(
        f"the model {found['model']:.0f} MB; packed weights and calibration {found['packed']:.0f} MB above it"
    )
    console.print(table)
    console.print(f"goal: under 1500 MB above the model: {'met' if worst < 1500 else 'NOT met'}")
    return 0 if worst < 1500 else 1


def _memory_of(count: int, threads: int) -> dict[str, float]:
    """Megabytes and seconds of one batch, in this process."""
    torch.set_num_threads(threads)
    model, slow, _ = ways.make_clip()
    base = _resident()
    encoder = df.ClipEncoder.from_transformers(model, slow, threads=threads, precision="guarded")
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad"), encoder)
    packed = _resident() - base
    # Files' bytes, as a data set holds them: 8192 completions have 1024 pictures, 0.9 MB each when decoded.
    pictures = [_encoded(i) for i in range(-(-count // ways.GROUP))]
    work = ways.make_work(pictures, count, seed=count)
    targets = [df.Target.parse(s, image_size=(ways.WIDTH, ways.HEIGHT)) for s in work.solutions]
    _return_memory()
    _forget_peak()
    start = time.perf_counter()
    scorer.score(work.texts, targets, work.pictures)
    seconds = time.perf_counter() - start
    peak, inputs = _peak() - base, sum(map(len, pictures)) + sum(map(len, work.texts))
    return {
        "seconds": seconds, "model": base / 1e6, "packed": packed / 1e6, "peak": peak / 1e6, "inputs": inputs / 1e6,
    }  # fmt: skip


def _encoded(seed: int) -> bytes:
    # 64 photographs, each shifted in brightness by its round: making a thousand would take longer than scoring them.
    picture = ways.photograph(seed % 64)
    if seed >= 64:
        picture = picture.point(lambda value, by=seed // 64: min(value + by, 255))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


def _status(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return float(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def _resident() -> float:
    return _status("VmRSS")


def _peak() -> float:
    return _status("VmHWM")


def _return_memory() -> None:
    """What making the inputs left behind goes back to the system; else it would count as the scorer's."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
        if trim is not None:
            trim(0)


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")
