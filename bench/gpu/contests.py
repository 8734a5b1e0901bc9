"""The contests of `bench.gpu`: each op against what users call on a GPU today, from the same tensors.

Everything is made for a device that is named, so that tests can compare the outputs on the CPU, where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from bench.gpu import crops, trainers
from bench.registry import Build, Contest, Provider, call
from dpad_fast.ops import (
    PackedMasks,
    discriminative_reward,
    group_advantage,
    mask_iou,
    mask_iou_matrix,
    polygon_iou,
    rasterize_polygons,
)


def numbers(tolerance: float) -> Callable[[Any, Any], tuple[str, bool]]:
    """Compares tensors, or the first of several, by their largest difference."""

    def compare(ours: Any, theirs: Any) -> tuple[str, bool]:
        a, b = (x[0] if isinstance(x, tuple) else x for x in (ours, theirs))
        a, b = (x.to_dense() if isinstance(x, PackedMasks) else x for x in (a, b))
        difference = float((a.double() - b.double().to(a.device)).abs().max())
        return (
            ("equal", True) if difference == 0 else (f"differs by up to {difference:.1e}", difference <= tolerance)
        )  # fmt: skip

    return compare


def contests(
    device: str, count: int = 128, height: int = 480, width: int = 640, pictures: int = 16
) -> dict[str, Iterable[Contest]]:
    """By op all cases on `device`: `count` masks and polygons, `pictures` photographs of height x width.

    The input of an op is made when its first case is asked for, so that one which cannot be made costs no other op.
    """
    return {
        "preprocess": crops.contests(device, pictures, height, width),
        "masks": _masks(device, count, height, width),
        "polygons": _polygons(device, count, height, width),
        "advantage": _advantage(device, 8 * count),
        "reward": _discriminative(device, count),
    }


# --- masks and polygons ---


def blobs(count: int, height: int, width: int, seed: int) -> list[torch.Tensor]:
    """Outlines float64 [40, 2] of wobbling circles."""
    rng = np.random.default_rng(seed)
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    out = []
    for _ in range(count):
        radius = rng.uniform(0.03, 0.2) * min(height, width)
        centre = rng.uniform([radius, radius], [width - radius, height - radius])
        wobble = radius * (0.75 + 0.25 * np.sin(turn * rng.integers(2, 6) + rng.uniform(0, 6)))
        ring = centre + np.stack([np.cos(turn), np.sin(turn)], axis=1) * wobble[:, None]
        out.append(torch.from_numpy(ring))
    return out


def _masks(device: str, count: int, height: int, width: int) -> Iterable[Contest]:
    def drawn(seed: int) -> torch.Tensor:
        masks: torch.Tensor = rasterize_polygons(blobs(count, height, width, seed), height, width, out="dense")
        return masks.to(device)

    a, b = drawn(0), drawn(1)
    truths, ignore = b[:16], drawn(2)[0]
    packed, packed_truths = PackedMasks.from_dense(a), PackedMasks.from_dense(truths)

    def ratio(inter: torch.Tensor, union: torch.Tensor) -> torch.Tensor:
        return torch.where(union == 0, 0.0, inter.double() / union.clamp(min=1).double())

    def by_torch(keep: torch.Tensor | None = None) -> torch.Tensor:
        both, either = a & b, a | b
        if keep is not None:
            both, either = both & keep, either & keep
        return ratio(both.sum((1, 2)), either.sum((1, 2)))

    def pairs_by_torch() -> torch.Tensor:
        x, y = a.flatten(1).float(), truths.flatten(1).float()
        inter = x @ y.T
        return ratio(inter, x.sum(1)[:, None] + y.sum(1)[None, :] - inter)

    def coco(paired: bool) -> Build:
        """As users have it: from run lengths, on the CPU, and the result stays there."""

        def build(threads: int) -> Callable[[], torch.Tensor]:
            from pycocotools import mask

            def runs(masks: torch.Tensor) -> list[Any]:
                found: list[Any] = mask.encode(
                    np.asfortranarray(masks.cpu().numpy().astype(np.uint8).transpose(1, 2, 0))
                )
                return found

            x, y = runs(a), runs(b if paired else truths)

            def iou() -> torch.Tensor:
                if not paired:
                    return torch.from_numpy(mask.iou(x, y, [0] * len(y)))
                return torch.tensor([mask.iou([one], [other], [0])[0, 0] for one, other in zip(x, y, strict=True)])

            return iou

        return build

    name, close = f"{count} masks of {height} x {width}", numbers(1e-12)
    on_cpu = "pycocotools on the CPU, from run lengths"
    peer = (Provider("torch", call(by_torch)), Provider(on_cpu, coco(True), "close"))
    yield Contest("masks", f"paired IoU, {name}", (Provider("dpad_fast", call(lambda: mask_iou(a, b))),), peer, close)
    peer = (Provider("torch", call(lambda: by_torch(~ignore))),)
    mine = (Provider("dpad_fast", call(lambda: mask_iou(a, b, ignore=ignore))),)
    yield Contest("masks", f"paired IoU with ignore, {name}", mine, peer, close)
    mine = (
        Provider("dpad_fast, dense", call(lambda: mask_iou_matrix(a, truths))),
        Provider("dpad_fast, packed", call(lambda: mask_iou_matrix(packed, packed_truths))),
    )
    peer = (Provider("torch, one matrix product", call(pairs_by_torch)), Provider(on_cpu, coco(False), "close"))
    yield Contest("masks", f"all pairs with {len(truths)}, {name}", mine, peer, close)


def _polygons(device: str, count: int, height: int, width: int) -> Iterable[Contest]:
    outlines = blobs(count, height, width, 3)
    there = [ring.to(device) for ring in outlines]
    whole = [ring.long().numpy().astype(np.int32) for ring in outlines]
    flat = [ring.flatten().tolist() for ring in outlines]
    truth = PackedMasks.from_dense(rasterize_polygons(blobs(count, height, width, 4), height, width, out="dense"))
    masks, dense_truth = truth.to(device), truth.to_dense().to(device)

    def opencv(threads: int) -> Callable[[], torch.Tensor]:
        import cv2

        def draw() -> torch.Tensor:
            canvas = np.zeros((count, height, width), np.uint8)
            for mask, ring in zip(canvas, whole, strict=True):
                cv2.fillPoly(mask, [ring], 1)
            return torch.from_numpy(canvas).to(device).bool()

        return draw

    def coco(threads: int) -> Callable[[], torch.Tensor]:
        from pycocotools import mask

        def draw() -> torch.Tensor:
            rles = [mask.merge(mask.frPyObjects([ring], height, width)) for ring in flat]
            planes = np.ascontiguousarray(mask.decode(rles).transpose(2, 0, 1))
            return torch.from_numpy(planes).to(device).bool()

        return draw

    def coco_on_cpu(threads: int) -> Callable[[], torch.Tensor]:
        """As users have it: polygon by polygon, against run lengths, and the result stays on the CPU."""
        from pycocotools import mask

        planes = np.asfortranarray(truth.to_dense().numpy().astype(np.uint8).transpose(1, 2, 0))
        truths = mask.encode(planes)

        def iou() -> torch.Tensor:
            drawn = [mask.merge(mask.frPyObjects([ring], height, width)) for ring in flat]
            return torch.tensor([mask.iou([x], [y], [0])[0, 0] for x, y in zip(drawn, truths, strict=True)])

        return iou

    def compared(build: Build) -> Build:
        def prepared(threads: int) -> Callable[[], torch.Tensor]:
            draw = build(threads)

            def iou() -> torch.Tensor:
                drawn = draw()
                both, either = (drawn & dense_truth).sum((1, 2)), (drawn | dense_truth).sum((1, 2))
                return torch.where(either == 0, 0.0, both.double() / either.clamp(min=1).double())

            return iou

        return prepared

    def ours(rings: list[torch.Tensor], rule: str, out: str) -> Build:
        return call(lambda: rasterize_polygons(rings, height, width, rule=rule, out=out, device=device))

    name = f"{count} polygons, {height} x {width}"
    for rule, peer in (("opencv", Provider("OpenCV, and up", opencv)), ("coco", Provider("pycocotools, and up", coco))):
        mine = (
            Provider("dpad_fast, dense", ours(there, rule, "dense")),
            Provider("dpad_fast, packed", ours(there, rule, "packed")),
            Provider("dpad_fast, dense, host vertices", ours(outlines, rule, "dense")),
        )
        yield Contest("polygons", f"draw, {rule}, {name}", mine, (peer,), numbers(0.0))
        against = (Provider("dpad_fast", call(lambda r=rule: polygon_iou(there, masks, rule=r))),)  # type: ignore[misc]
        peers: tuple[Provider, ...] = (Provider(f"{peer.name}, then torch", compared(peer.build)),)
        if rule == "coco":
            peers += (Provider("pycocotools on the CPU", coco_on_cpu, "close"),)
        yield Contest("polygons", f"IoU, {rule}, {name}", against, peers, numbers(1e-12))


# --- advantages and rewards ---


def _advantage(device: str, n: int, size: int = 8, tokens: int = 512) -> Iterable[Contest]:
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randn(n, generator=generator).to(device)
    mask = (torch.rand(n, tokens, generator=generator) < 0.8).to(device)
    scores = torch.zeros(n, tokens, device=device)
    scores[:, -1] = rewards
    ids = torch.arange(n, device=device) // size
    names = np.array([f"prompt-{i // size}" for i in range(n)], dtype=object)

    def trl(threads: int) -> Callable[[], torch.Tensor]:
        lines, terms = trainers.trl(size), rewards[:, None]
        return lambda: lines(terms)

    def trl_tokens(threads: int) -> Callable[[], torch.Tensor]:
        advantages = trl(threads)
        return lambda: advantages()[:, None] * mask

    def verl(name: str) -> Build:
        def build(threads: int) -> Callable[[], Any]:
            function = trainers.verl(name)
            return lambda: function(scores, mask, index=names, epsilon=1e-6)[0]

        return build

    mine = (Provider("dpad_fast", call(lambda: group_advantage(rewards, size, eps=1e-4))),)
    close, peers = numbers(1e-5), (Provider("TRL", trl, "close"),)
    yield Contest("advantage", f"[{n}] in groups of {size}", mine, peers, close)
    ours = {"eps": 1e-6, "singleton": "reward", "token_mask": mask}
    mine = (
        Provider("dpad_fast, groups of neighbours", call(lambda: group_advantage(rewards, size, **ours))),
        Provider("dpad_fast, ids", call(lambda: group_advantage(rewards, ids, **ours)), "close"),
    )
    peers = (
        Provider("TRL, times the mask (eps 1e-4)", trl_tokens, "other"),
        Provider("verl", verl("compute_grpo_outcome_advantage"), "close"),
        Provider("verl, vectorised", verl("compute_grpo_vectorized_outcome_advantage"), "close"),
    )
    yield Contest("advantage", f"[{n}, {tokens}] in groups of {size}", mine, peers, close)


def _discriminative(device: str, n: int, d: int = 512) -> Iterable[Contest]:
    generator = torch.Generator().manual_seed(0)
    m = max(n // 8, 1)
    text, roi, aoi = (torch.randn(k, d, generator=generator).to(device) for k in (n, m, m))
    rows = (torch.arange(n) * m // n).to(device)

    def by_torch() -> torch.Tensor:
        """As a user would write it: normalise, gather, multiply, and make the reward."""
        t, r, a = (torch.nn.functional.normalize(x, dim=-1) for x in (text, roi, aoi))
        s1, s2 = (t * r[rows]).sum(-1), (t * a[rows]).sum(-1)
        return s1 * (s1 - s2).clamp(min=0)

    mine = (Provider("dpad_fast", call(lambda: discriminative_reward(text, roi, aoi, rows, shape="released"))),)
    yield Contest(
        "reward", f"[{n}, {d}], {m} regions", mine, (Provider("torch", call(by_torch), "close"),), numbers(1e-5)
    )
