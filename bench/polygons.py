"""Polygons against what users call today: 128 polygons of 40 vertices on 640 x 480."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from bench.masks import call, same, same_rle
from bench.registry import Build, Contest, Provider
from bench.scenes import HEIGHT, WIDTH, blobs, draw
from dpad_fast.ops import PackedMasks, polygon_iou, rasterize_polygons

OUTLINES = blobs(2)
INTEGERS = [outline.astype(np.int32) for outline in OUTLINES]
FLAT = [outline.flatten().tolist() for outline in OUTLINES]
TRUTHS = draw(blobs(3))


def pixels(ours: Any, theirs: Any) -> tuple[str, bool]:
    """Share of pixels in which two sets of masks differ."""
    a, b = (np.asarray(m.to_dense() if isinstance(m, PackedMasks) else m).astype(bool) for m in (ours, theirs))
    share = float((a != b).mean())
    return ("equal", True) if share == 0 else (f"{share:.2%} of the pixels differ", False)


def opencv(threads: int) -> Callable[[], Any]:
    import cv2

    cv2.setNumThreads(threads)

    def dense() -> Any:
        canvas = np.zeros((len(INTEGERS), HEIGHT, WIDTH), np.uint8)
        for mask, ring in zip(canvas, INTEGERS, strict=True):
            cv2.fillPoly(mask, [ring], 1)
        return canvas

    return dense


def opencv_kept(threads: int) -> Callable[[], Any]:
    """With a buffer that its caller keeps and clears, where users make a new one."""
    import cv2

    cv2.setNumThreads(threads)
    canvas = np.zeros((len(INTEGERS), HEIGHT, WIDTH), np.uint8)

    def dense() -> Any:
        for mask, ring in zip(canvas, INTEGERS, strict=True):
            mask.fill(0)
            cv2.fillPoly(mask, [ring], 1)
        return canvas

    return dense


def cleared(threads: int) -> Callable[[], Any]:
    """Clear memory of the masks' size that is there already: what no drawing into bytes can beat."""
    canvas = np.zeros((len(INTEGERS), HEIGHT, WIDTH), np.uint8)

    def clear() -> Any:
        canvas.fill(0)
        return canvas

    return clear


def pillow() -> Any:
    from PIL import Image, ImageDraw

    out = []
    for flat in FLAT:
        image = Image.new("1", (WIDTH, HEIGHT))
        ImageDraw.Draw(image).polygon(flat, fill=1)
        out.append(np.asarray(image))
    return np.stack(out)


def skimage(threads: int) -> Callable[[], Any]:
    from skimage.draw import polygon2mask

    return lambda: np.stack([polygon2mask((HEIGHT, WIDTH), outline[:, ::-1]) for outline in OUTLINES])


def coco(work: str, name: str = "pycocotools.mask") -> Build:
    def build(threads: int) -> Callable[[], Any]:
        import importlib

        mask = importlib.import_module(name)

        def rles() -> list[Any]:
            return [mask.merge(mask.frPyObjects([flat], HEIGHT, WIDTH)) for flat in FLAT]

        if work == "rle":
            return rles
        return lambda: np.asarray(mask.decode(rles())).transpose(2, 0, 1)

    return build


def iou_by(drawn: Build) -> Build:
    """Draw the polygons densely, then compare pixels."""

    def build(threads: int) -> Callable[[], Any]:
        make = drawn(threads)

        def pairs() -> Any:
            masks = make().astype(bool)
            return np.logical_and(masks, TRUTHS).sum((1, 2)) / np.logical_or(masks, TRUTHS).sum((1, 2))

        return pairs

    return build


def coco_pairs(name: str) -> Build:
    """Polygon to RLE, and the IoU of each pair of RLE, by a library of COCO's functions."""

    def build(threads: int) -> Callable[[], Any]:
        import importlib

        mask = importlib.import_module(name)
        truths = mask.encode(np.asfortranarray(TRUTHS.transpose(1, 2, 0).astype(np.uint8)))

        def pairs() -> Any:
            rles = [mask.merge(mask.frPyObjects([flat], HEIGHT, WIDTH)) for flat in FLAT]
            return np.array([mask.iou([rle], [truth], [0])[0, 0] for rle, truth in zip(rles, truths, strict=True)])

        return pairs

    return build


def ours(out: str, rule: str) -> Build:
    given = INTEGERS if rule == "opencv" else OUTLINES
    return call(lambda: rasterize_polygons(given, HEIGHT, WIDTH, rule=rule, out=out))


def contests() -> Iterable[Contest]:
    """To dense and to bits by OpenCV's rule, to dense and RLE by COCO's, and IoU against masks."""
    others = (Provider("Pillow", call(pillow), "other"), Provider("scikit-image", skimage, "other"))
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
    truths = PackedMasks.from_dense(TRUTHS)
    for rule, given, peers in (
        ("opencv", INTEGERS, (Provider("OpenCV, then NumPy", iou_by(opencv)),)),
        (
            "coco",
            OUTLINES,
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
            Provider("dpad_fast, dense truth", call(lambda r=rule, g=given: polygon_iou(g, TRUTHS, rule=r).numpy())),  # type: ignore[misc]
        )
        yield Contest("polygons", f"IoU, {rule}", mine, peers, same, {"exact": 5.0})
