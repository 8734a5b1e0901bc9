"""Masks against what users call today: paired IoU of 128 masks of 640 x 480, all pairs of 128 and 16, and encoding."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bench.cpu import scenes
from bench.registry import Build, Contest, Provider, call
from dpad_fast.ops import PackedMasks, mask_iou, mask_iou_matrix

TRUTHS = 16


def same(ours: Any, theirs: Any) -> tuple[str, bool]:
    """Largest difference of two arrays of IoU."""
    difference = float(np.abs(np.asarray(ours) - np.asarray(theirs)).max())
    return ("equal", True) if difference < 1e-12 else (f"differs by {difference:.1e}", False)


def same_rle(ours: Any, theirs: Any) -> tuple[str, bool]:
    """Whether two lists of compressed RLE are the same bytes."""

    def counts(rles: Any) -> list[bytes]:
        return [r["counts"].encode() if isinstance(r["counts"], str) else bytes(r["counts"]) for r in rles]

    return ("equal", True) if counts(ours) == counts(theirs) else ("differs", False)


def numpy_paired(threads: int) -> Callable[[], Any]:
    a, b = scenes.masks(0), scenes.masks(1)
    return lambda: np.logical_and(a, b).sum((1, 2)) / np.logical_or(a, b).sum((1, 2))


def in_peers_order(masks: Any) -> Any:
    """[N, H, W] bool as the libraries of COCO's functions take masks: uint8 [H, W, N] in Fortran order."""
    return np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8))


def one_pass(*masks: npt.NDArray[Any]) -> Provider:
    """Read every byte once, on all threads, and do next to nothing with it: what no IoU of dense masks can beat."""
    words = [torch.from_numpy(m).view(torch.int64) for m in masks]
    return Provider("one pass over the masks", call(lambda: tuple(int(w.sum()) for w in words)), "other")


def torch_paired(threads: int) -> Callable[[], Any]:
    a, b = torch.from_numpy(scenes.masks(0)), torch.from_numpy(scenes.masks(1))
    return lambda: ((a & b).sum((1, 2)) / (a | b).sum((1, 2)).double()).numpy()


def numpy_pairs(threads: int) -> Callable[[], Any]:
    """The masks as float32 vectors, and one matrix product."""
    masks, truths = scenes.masks(0).reshape(scenes.COUNT, -1), scenes.masks(1, TRUTHS).reshape(TRUTHS, -1)

    def pairs() -> Any:
        a, b = masks.astype(np.float32), truths.astype(np.float32)
        shared = (a @ b.T).astype(np.float64)
        return shared / (a.sum(1)[:, None] + b.sum(1)[None, :] - shared)

    return pairs


def torch_pairs(threads: int) -> Callable[[], Any]:
    """The same in torch."""
    a, b = (torch.from_numpy(m).flatten(1) for m in (scenes.masks(0), scenes.masks(1, TRUTHS)))

    def pairs() -> Any:
        x, y = a.float(), b.float()
        shared = (x @ y.T).double()
        return (shared / (x.sum(1)[:, None] + y.sum(1)[None, :] - shared)).numpy()

    return pairs


def coco_like(name: str, work: str) -> Build:
    """`pycocotools.mask` or a library of the same functions, doing one work.

    "own" is all pairs from its own RLE, "dense" from [N, H, W], "ordered" from its own order of pixels; or "encode".
    """

    def build(threads: int) -> Callable[[], Any]:
        import importlib

        mask = importlib.import_module(name)
        masks, truths = scenes.masks(0), scenes.masks(1, TRUTHS)
        ordered, ordered_truths = in_peers_order(masks), in_peers_order(truths)
        if work == "encode":
            return lambda: mask.encode(ordered)
        crowd = [0] * TRUTHS
        if work == "dense":
            return lambda: mask.iou(mask.encode(in_peers_order(masks)), mask.encode(in_peers_order(truths)), crowd)
        if work == "ordered":
            return lambda: mask.iou(mask.encode(ordered), mask.encode(ordered_truths), crowd)
        a, b = mask.encode(ordered), mask.encode(ordered_truths)
        return lambda: mask.iou(a, b, crowd)

    return build


def rlemasklib(work: str) -> Build:
    def build(threads: int) -> Callable[[], Any]:
        import rlemasklib

        def objects(masks: Any) -> list[Any]:
            return [rlemasklib.RLEMask.from_array(mask) for mask in masks]

        masks, truths = scenes.masks(0), scenes.masks(1, TRUTHS)
        a, b = objects(masks), objects(truths)
        if work == "dense":
            return lambda: rlemasklib.RLEMask.iou_matrix(objects(masks), objects(truths))
        if work == "ordered":
            columns_a, columns_b = masks.transpose(0, 2, 1).copy(), truths.transpose(0, 2, 1).copy()

            def turned() -> Any:
                a, b = (objects(columns.transpose(0, 2, 1)) for columns in (columns_a, columns_b))
                return rlemasklib.RLEMask.iou_matrix(a, b)

            return turned
        return lambda: rlemasklib.RLEMask.iou_matrix(a, b)

    return build


def contests() -> Iterable[Contest]:
    """Paired from dense; all pairs from each side's own form and from dense; encoding."""
    from dpad_fast import coco_mask

    masks, others, truths = scenes.masks(0), scenes.masks(1), scenes.masks(1, TRUTHS)
    fortran = in_peers_order(masks)
    yield Contest(
        "masks",
        "paired IoU, dense",
        (Provider("dpad_fast", call(lambda: mask_iou(masks, others).numpy())),),
        (
            Provider("NumPy", numpy_paired),
            Provider("torch", torch_paired),
            one_pass(masks, others),
        ),
        lambda ours, theirs: ("not an IoU", False) if isinstance(theirs, tuple) else same(ours, theirs),
        {"exact": 10.0},
    )
    packed_a, packed_t = PackedMasks.from_dense(masks), PackedMasks.from_dense(truths)
    rle_a, rle_t = packed_a.to_rle(), packed_t.to_rle()
    libraries = {
        "pycocotools": "pycocotools.mask",
        "faster-coco-eval": "faster_coco_eval.core.mask",
        "hotcoco": "hotcoco.mask",
    }

    def all_pairs(work: str) -> tuple[Provider, ...]:
        same_functions = [Provider(name, coco_like(module, work)) for name, module in libraries.items()]
        return (*same_functions, Provider("rlemasklib", rlemasklib(work)))

    peers = all_pairs("own")
    from_rle = Provider("dpad_fast.coco_mask, RLE", call(lambda: coco_mask.iou(rle_a, rle_t, [0] * len(rle_t))))
    packed = Provider("dpad_fast, packed", call(lambda: mask_iou_matrix(packed_a, packed_t).numpy()))
    yield Contest("masks", "all pairs, each side's own form", (packed, from_rle), peers, same, {"exact": 4.0})
    # The same, RLE dictionaries on both sides.
    yield Contest("masks", "all pairs, RLE dictionaries", (from_rle, packed), peers[:3], same, {"exact": 4.0})
    dense = (Provider("NumPy", numpy_pairs), Provider("torch", torch_pairs))
    ours = Provider("dpad_fast", call(lambda: mask_iou_matrix(masks, truths).numpy()))
    yield Contest("masks", "all pairs, dense [N, H, W]", (ours,), (*dense, *all_pairs("dense")), same, {"exact": 10.0})
    # Without the turn into column-major order that COCO's run lengths need: masks that lie so already.
    yield Contest(
        "masks",
        "all pairs, dense, peers in their own order",
        (ours,),
        (*all_pairs("ordered"), one_pass(masks, truths)),
        lambda ours, theirs: ("not an IoU", False) if isinstance(theirs, tuple) else same(ours, theirs),
        {"exact": 10.0},
    )
    yield Contest(
        "masks",
        "encode dense to RLE",
        (
            Provider("dpad_fast", call(lambda: PackedMasks.from_dense(masks).to_rle())),
            Provider("dpad_fast.coco_mask, Fortran", call(lambda: coco_mask.encode(fortran))),
        ),
        tuple(Provider(name, coco_like(module, "encode")) for name, module in libraries.items()),
        same_rle,
    )
