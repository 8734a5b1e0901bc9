"""Polygons against what users call today: 128 polygons of 40 vertices on 640 x 480."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from bench.cpu.masks import in_peers_order, same, same_rle
from bench.cpu.scenes import HEIGHT, WIDTH, blobs, masks
from bench.registry import Build, Contest, Provider, call
from dpad_fast.ops import PackedMasks, polygon_iou, rasterize_polygons

OUTLINES, TRUTHS = 2, 3  # seeds


@functools.cache
def integers() -> list[Any]:
    """The outlines as OpenCV takes them: int32 [40, 2]."""
    return [outline.astype(np.int32) for outline in blobs(OUTLINES)]


@functools.cache
def flat() -> list[list[float]]:
    """The outlines as COCO's functions take them: x, y, x, y, ..."""
    return [outline.flatten().tolist() for outline in blobs(OUTLINES)]


def pixels(ours: Any, theirs: Any) -> tuple[str, bool]:
    """Share of pixels in which two sets of masks differ."""
    a, b = (np.asarray(m.to_dense() if isinstance(m, PackedMasks) else m).astype(bool) for m in (ours, theirs))
    share = float((a != b).mean())
    return ("equal", True) if share == 0 else (f"{share:.2%} of the pixels differ", False)


def opencv(threads: int) -> Callable[[], Any]:
    import cv2

    cv2.setNumThreads(threads)
    rings = integers()

    def dense() -> Any:
        canvas = np.zeros((len(rings), HEIGHT, WIDTH), np.uint8)
        for mask, ring in zip(canvas, rings, strict=True):
            cv2.fillPoly(mask, [ring], 1)
        return canvas

    return dense


def opencv_kept(threads: int) -> Callable[[], Any]:
    """With a buffer that its caller keeps and clears, where users make a new one."""
    import cv2

    cv2.setNumThreads(threads)
    rings = integers()
    canvas = np.zeros((len(rings), HEIGHT, WIDTH), np.uint8)

    def dense() -> Any:
        for mask, ring in zip(canvas, rings, strict=True):
            mask.fill(0)
            cv2.fillPoly(mask, [ring], 1)
        return canvas

    return dense


def cleared(threads: int) -> Callable[[], Any]:
    """Clear memory of the masks' size that is there already: what no drawing into bytes can beat."""
    canvas = np.zeros((len(integers()), HEIGHT, WIDTH), np.uint8)

    def clear() -> Any:
        canvas.fill(0)
        return canvas

    return clear


def pillow(threads: int) -> Callable[[], Any]:
    from PIL import Image, ImageDraw

    rings = flat()

    def dense() -> Any:
        out = []
        for ring in rings:
            image = Image.new("1", (WIDTH, HEIGHT))
            ImageDraw.Draw(image).polygon(ring, fill=1)
            out.append(np.asarray(image))
        return np.stack(out)

    return dense


def skimage(threads: int) -> Callable[[], Any]:
    from skimage.draw import polygon2mask

    outlines = blobs(OUTLINES)
    return lambda: np.stack([polygon2mask((HEIGHT, WIDTH), outline[:, ::-1]) for outline in outlines])


def coco(work: str, name: str = "pycocotools.mask") -> Build:
    def build(threads: int) -> Callable[[], Any]:
        import importlib

        mask, rings = importlib.import_module(name), flat()

        def rles() -> list[Any]:
            return [mask.merge(mask.frPyObjects([ring], HEIGHT, WIDTH)) for ring in rings]

        if work == "rle":
            return rles
        return lambda: np.asarray(mask.decode(rles())).transpose(2, 0, 1)

    return build


def iou_by(draw: Build) -> Build:
    """Draw the polygons densely, then compare pixels."""

    def build(threads: int) -> Callable[[], Any]:
        make, truths = draw(threads), masks(TRUTHS)

        def pairs() -> Any:
            found = make().astype(bool)
            return np.logical_and(found, truths).sum((1, 2)) / np.logical_or(found, truths).sum((1, 2))

        return pairs

    return build


def coco_pairs(name: str) -> Build:
    """Polygon to RLE, and the IoU of each pair of RLE, by a library of COCO's functions."""

    def build(threads: int) -> Callable[[], Any]:
        import importlib

        mask, rings = importlib.import_module(name), flat()
        truths = mask.encode(in_peers_order(masks(TRUTHS)))

        def pairs() -> Any:
            rles = [mask.merge(mask.frPyObjects([ring], HEIGHT, WIDTH)) for ring in rings]
            return np.array([mask.iou([rle], [truth], [0])[0, 0] for rle, truth in zip(rles, truths, strict=True)])

        return pairs

    return build


def ours(out: str, rule: str) -> Build:
    given = integers() if rule == "opencv" else blobs(OUTLINES)
    return call(lambda: rasterize_polygons(given, HEIGHT, WIDTH, rule=rule, out=out))


def contests() -> Iterable[Contest]:
    """To dense and to bits by OpenCV's rule, to dense and RLE by COCO's, and IoU against masks."""
    others = (Provider("Pillow", pillow, "other"), Provider("scikit-image", skimage, "other"))
    opencv_peers = (Provider("OpenCV", opencv), *others)
    dense = (Provider("dpad_fast, opencv, dense", ours("dense", "opencv")),)
    yield Contest("polygons", "dense, OpenCV's rule", dense, opencv_peers, pixels, {"exact": 2.0})
    kept = (Provider("OpenCV, buffer kept by its caller", opencv_kept), Provider("clearing only", cleared, "other"))
    yield Contest("polygons", "dense, OpenCV's rule, peer keeps its buffer", dense, kept, pixels, {"exact": 2.0})
    packed = (Provider("dpad_fast, opencv, packed", ours("packed", "opencv")),)
    yield Contest("polygons", "packed, OpenCV's rule", packed, opencv_peers[:1], pixels, {"exact": 5.0})
    coco_dense = (Provider("dpad_fast, coco, dense", ours("dense", "coco")),)
    coco_peers = (
        Provider("pycocotools", coco("dense")),
        Provider("faster-coco-eval", coco("dense", "faster_coco_eval.core.mask")),
        Provider("hotcoco", coco("dense", "hotcoco.mask")),
    )
    yield Contest("polygons", "dense, COCO's rule", coco_dense, coco_peers[:1], pixels, {"exact": 5.0})
    yield Contest("polygons", "dense, COCO's rule, all peers", coco_dense, coco_peers, pixels)
    rle = (Provider("dpad_fast, coco, rle", ours("rle", "coco")),)
    rle_peers = (
        Provider("pycocotools", coco("rle")),
        Provider("faster-coco-eval", coco("rle", "faster_coco_eval.core.mask")),
        Provider("hotcoco", coco("rle", "hotcoco.mask")),
    )
    yield Contest("polygons", "RLE, COCO's rule", rle, rle_peers, same_rle)
    drawn = masks(TRUTHS)
    truths = PackedMasks.from_dense(drawn)
    for rule, given, peers in (
        ("opencv", integers(), (Provider("OpenCV, then NumPy", iou_by(opencv)),)),
        (
            "coco",
            blobs(OUTLINES),
            (
                Provider("pycocotools", coco_pairs("pycocotools.mask")),
                Provider("faster-coco-eval", coco_pairs("faster_coco_eval.core.mask")),
                Provider("hotcoco", coco_pairs("hotcoco.mask")),
                Provider("pycocotools to dense", iou_by(coco("dense"))),
            ),
        ),
    ):
        mine = (
            Provider("dpad_fast", call(lambda r=rule, g=given: polygon_iou(g, truths, rule=r).numpy())),  # type: ignore[misc]
            Provider("dpad_fast, dense truth", call(lambda r=rule, g=given: polygon_iou(g, drawn, rule=r).numpy())),  # type: ignore[misc]
        )
        yield Contest("polygons", f"IoU, {rule}", mine, peers, same, {"exact": 5.0})
