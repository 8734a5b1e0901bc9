"""Drop-in for `pycocotools.mask`: `import dpad_fast.coco_mask as mask`.

The same arguments and results: dictionaries {"size": [height, width], "counts": bytes}, uint8 masks in Fortran order,
uint32 areas, float64 boxes (x, y, width, height). Run lengths that do not fill the picture are measured and joined as
they are, sides of any length are taken, and polygons of one or two vertices are empty masks. The differences:

* A ValueError that names the item where pycocotools raises something else, reads memory that is not there, never
  returns or answers with noise: `decode` of run lengths that do not add up to the mask, or of masks of different sizes;
  `merge` and `iou` of masks whose run lengths add up to different numbers; strings that are no run lengths; counts
  below 0; vertices that are no numbers or beyond 1e7 (there it takes memory for each step of the outline).
* Polygons and boxes are drawn on at most 65,535 a side and 2^28 pixels; beyond, `frPyObjects` is a ValueError.
* Run lengths of 0 anywhere and bytes other than 0 and 1 mean what they say; `merge`, `iou` and `toBbox` of pycocotools
  misread the former, its `encode` the latter.
* `encode` takes arrays of any memory order, and bool; `frPyObjects` takes boxes in lists, and single objects.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dpad_fast import _coco_runs, _extension

Rle: TypeAlias = dict[str, Any]
_LONGEST = 65535  # as kMaxSide in csrc/core/masks/masks.h
__all__ = ["area", "decode", "encode", "frPyObjects", "iou", "merge", "toBbox"]


def encode(bimask: npt.NDArray[Any]) -> Any:
    """Run lengths of a mask [H, W] (one dictionary) or of masks [H, W, N] (a list of N).

    Args:
        bimask: uint8 or bool; what is not 0 is in the mask.

    Raises:
        ValueError: another dtype or number of dimensions.
    """
    masks = np.asarray(bimask)
    if masks.dtype not in (np.uint8, np.bool_) or masks.ndim not in (2, 3):
        raise ValueError(f"bimask must be uint8 or bool [H, W] or [H, W, N], got {masks.dtype} {list(masks.shape)}")
    if max(masks.shape[:2]) > _LONGEST:
        rles = [_coco_runs.encode(mask) for mask in (np.moveaxis(masks, 2, 0) if masks.ndim == 3 else [masks])]
        return rles if masks.ndim == 3 else rles[0]
    _extension.C.check_mask_size("bimask", *masks.shape[:2])
    if masks.ndim == 2:
        if masks.flags.c_contiguous and not masks.flags.f_contiguous:
            return _encode_rows(masks)
        return _encode_columns(np.asfortranarray(masks[:, :, None]))[0]
    return _encode_columns(np.asfortranarray(masks))


def decode(rleObjs: Any) -> npt.NDArray[np.uint8]:
    """Masks of run lengths: uint8 [H, W] of a dictionary, [H, W, N] of a list, in Fortran order.

    Raises:
        ValueError: a dictionary is malformed, the list is empty, or sizes differ.
    """
    if not isinstance(rleObjs, list):
        return decode([rleObjs])[:, :, 0]
    try:
        height, width = _extension.C.rle_sizes(rleObjs, "rleObjs")
    except ValueError:
        long = _long_masks(rleObjs)
        if long is None:
            raise
        return long
    masks = np.empty((height, width, len(rleObjs)), np.uint8, order="F")
    _extension.C.rle_decode(rleObjs, _threads(), masks.ctypes.data, height, width)
    return masks


def area(rleObjs: Any) -> Any:
    """Pixels in the mask: a uint32 of a dictionary, uint32 [N] of a list."""
    if not isinstance(rleObjs, list):
        return area([rleObjs])[0]
    return _measure(rleObjs)[0].astype(np.uint32)


def toBbox(rleObjs: Any) -> npt.NDArray[np.float64]:
    """Boxes (x, y, width, height): float64 [4] of a dictionary, [N, 4] of a list; zeros for an empty mask."""
    if not isinstance(rleObjs, list):
        box: npt.NDArray[np.float64] = toBbox([rleObjs])[0]
        return box
    boxes = _measure(rleObjs)[1]
    boxes[:, 2:] -= boxes[:, :2]
    return boxes.astype(np.float64)


def merge(rleObjs: list[Rle], intersect: int | bool = 0) -> Rle:
    """Union of masks, or intersection. Of masks of different sizes, and of none, an empty mask of size [0, 0]."""
    if len({tuple(rle["size"]) for rle in rleObjs if isinstance(rle, dict) and "size" in rle}) > 1:
        return {"size": [0, 0], "counts": b""}
    try:
        merged: Rle = _extension.C.rle_merge(rleObjs, bool(intersect), _threads())
    except ValueError:
        runs = _coco_runs.read_all(rleObjs)
        if runs is None:
            raise
        return _coco_runs.merge(runs, bool(intersect)).to_dict()
    return merged


def iou(dt: Any, gt: Any, pyiscrowd: Any) -> Any:
    """IoU of every detection with every ground truth, both run lengths or both boxes (x, y, width, height).

    Args:
        dt: M dictionaries, or boxes as a list or an array [M, 4].
        gt: N of the same kind.
        pyiscrowd: N flags; where true the union is the detection's area.

    Returns:
        float64 [M, N] in Fortran order; -1 where masks of different sizes have boxes that meet. An empty list where
        M or N is 0.

    Raises:
        ValueError: an argument is not as described.
    """
    crowd = np.ascontiguousarray(pyiscrowd, np.uint8)
    (dt, dt_boxes), (gt, gt_boxes) = _kind("dt", dt), _kind("gt", gt)
    if crowd.shape != (len(gt),):
        raise ValueError(f"pyiscrowd must have the length of gt, {len(gt)}, got {list(crowd.shape)}")
    if len(dt) == 0 or len(gt) == 0:
        return []
    if dt_boxes != gt_boxes:
        raise ValueError("dt and gt must be of one kind, both run lengths or both boxes")
    if dt_boxes:
        return _box_iou(dt, gt, crowd)
    out = np.empty((len(dt), len(gt)), np.float64, order="F")
    try:
        _extension.C.rle_iou(dt, gt, _threads(), crowd.ctypes.data, out.ctypes.data)
    except ValueError:
        runs = _coco_runs.read_all(dt), _coco_runs.read_all(gt)
        if runs[0] is None or runs[1] is None:
            raise
        return _coco_runs.iou(runs[0], runs[1], crowd)
    return out


def frPyObjects(pyobj: Any, h: int, w: int) -> Any:
    """Compressed run lengths of boxes, polygons or uncompressed run lengths.

    Args:
        pyobj: a list of flat polygons x0, y0, x1, y1, ... (each by itself, not joined), a list or an array [N, 4] of
            boxes (x, y, width, height), a list of dictionaries with lists of run lengths; or one of these alone.
        h: rows of the masks.
        w: columns of the masks.

    Returns:
        A list of dictionaries; one dictionary for one object alone.

    Raises:
        ValueError: `pyobj` is none of these, or an item is malformed.
    """
    if isinstance(pyobj, np.ndarray):
        return _from_boxes(pyobj, h, w)
    if isinstance(pyobj, dict):
        return _compressed([pyobj])[0]
    if not isinstance(pyobj, list | tuple) or not pyobj:
        raise ValueError(f"pyobj must be a list of boxes, polygons or run lengths, got {pyobj!r:.80}")
    first = pyobj[0]
    if isinstance(first, dict):
        return _compressed(pyobj)
    if not isinstance(first, list | tuple) and np.ndim(first) == 0:
        return frPyObjects([pyobj], h, w)[0]
    if len(first) == 4:
        return _from_boxes(pyobj, h, w)
    return _from_polygons(pyobj, h, w)


def _threads() -> int:
    """As many as torch uses, where torch is loaded; else one, as pycocotools."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch is not None and hasattr(torch, "get_num_threads") else 1


def _encode_columns(masks: npt.NDArray[Any]) -> list[Rle]:
    height, width, n = masks.shape
    rles: list[Rle] = _extension.C.rle_encode(masks.ctypes.data, n, height, width, _threads())
    return rles


def _encode_rows(mask: npt.NDArray[Any]) -> Rle:
    """Through bits: turning 64 x 64 bits is cheaper than turning the bytes into Fortran order."""
    height, width = mask.shape
    words, measured = np.empty((height, (width + 63) // 64), np.int64), np.empty(5, np.int64)
    _extension.C.pack_masks(
        mask.ctypes.data, 1, height, width, 1, words.ctypes.data, measured[4:].ctypes.data, measured.ctypes.data
    )
    rle: Rle = _extension.C.rle_from_words(words.ctypes.data, measured.ctypes.data, 1, height, width, 1)[0]
    return rle


def _measure(rles: list[Rle]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    areas, boxes = np.empty(len(rles), np.int64), np.empty((len(rles), 4), np.int64)
    try:
        _extension.C.rle_measure(rles, _threads(), areas.ctypes.data, boxes.ctypes.data)
    except ValueError:
        runs = _coco_runs.read_all(rles)
        if runs is None:
            raise
        areas[:], boxes[:] = [one.area for one in runs], [one.box for one in runs]
    return areas, boxes


def _long_masks(rles: list[Rle]) -> npt.NDArray[np.uint8] | None:
    """Masks of sides that the extension does not take; None where that is not what is wrong."""
    runs = _coco_runs.read_all(rles)
    if not runs or len({one[:2] for one in runs}) > 1 or any(one.total != one.height * one.width for one in runs):
        return None
    masks = np.empty((runs[0].height, runs[0].width, len(runs)), np.uint8, order="F")
    for i, one in enumerate(runs):
        masks[:, :, i] = one.pixels().reshape(masks.shape[:2], order="F")
    return masks


def _compressed(rles: Any) -> list[Rle]:
    try:
        compressed: list[Rle] = _extension.C.rle_canonical(rles, "pyobj")
    except ValueError:
        runs = _coco_runs.read_all(rles)
        if runs is None:
            raise
        return [one.to_dict() for one in runs]
    return compressed


def _kind(name: str, objects: Any) -> tuple[Any, bool]:
    """The objects, and whether they are boxes (then as float64 [N, 4])."""
    if not isinstance(objects, list | tuple | np.ndarray):
        raise ValueError(f"{name} must be a list of run lengths or boxes, got {type(objects).__name__}")
    plain = not isinstance(objects, np.ndarray)
    # The set of types is a fifth of the cost of asking each one, and nearly always answers.
    if len(objects) == 0 or (
        plain and (set(map(type, objects)) == {dict} or all(isinstance(item, dict) for item in objects))
    ):
        return objects, False
    return _boxes(name, objects), True


def _boxes(name: str, boxes: Any) -> npt.NDArray[np.float64]:
    try:
        array = np.ascontiguousarray(boxes, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be run lengths only, or boxes only") from None
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"{name} must be boxes [N, 4] or run lengths, got {list(array.shape)}")
    return array


def _box_iou(dt: npt.NDArray[np.float64], gt: npt.NDArray[np.float64], crowd: npt.NDArray[np.uint8]) -> Any:
    a, b = dt[:, None], gt[None]  # [M, 1, 4], [1, N, 4]
    # As in C: fmin and fmax pass over NaN, which is no reason to skip a pair, and nothing warns.
    with np.errstate(all="ignore"):
        size = np.fmin(a[..., 2:] + a[..., :2], b[..., 2:] + b[..., :2]) - np.fmax(a[..., :2], b[..., :2])
        apart = (size <= 0).any(axis=2)
        both = size[..., 0] * size[..., 1]
        area_a = a[..., 2] * a[..., 3]
        union = np.where(crowd[None] != 0, area_a, area_a + b[..., 2] * b[..., 3] - both)
        out = np.zeros(apart.shape, np.float64, order="F")
        np.divide(both, union, out=out, where=~apart)
    return out


def _from_boxes(boxes: Any, h: int, w: int) -> list[Rle]:
    array = _boxes("pyobj", boxes)
    x1, y1 = array[:, 0], array[:, 1]
    x2, y2 = x1 + array[:, 2], y1 + array[:, 3]
    vertices = np.ascontiguousarray(np.stack([x1, y1, x1, y2, x2, y2, x2, y1], axis=1))
    n = len(array)
    objects = np.arange(n + 1, dtype=np.int64)
    rings = objects * 4
    return _draw((vertices.ctypes.data, 4 * n, rings.ctypes.data, n, objects.ctypes.data, n), h, w)


def _from_polygons(polygons: Sequence[Any], h: int, w: int) -> list[Rle]:
    rings = [_even(ring, i) for i, ring in enumerate(polygons)]
    if len(polygons[0]) < 4:
        raise ValueError(f"pyobj[0] must be a box of 4 numbers or a polygon of more, got {polygons[0]!r:.80}")
    try:
        held = _extension.C.Polygons(rings)
    except ValueError:  # numbers in strings, as pycocotools takes them
        try:
            held = _extension.C.Polygons([np.array(ring, np.float64) for ring in rings])
        except (TypeError, ValueError, OverflowError):
            held = None
        if held is None:
            raise
    return _draw(held.args, h, w)


def _even(ring: Any, number: int) -> Any:
    """A flat polygon without an odd last number, as in pycocotools; of pairs or rings the last would be dropped."""
    if isinstance(ring, list | tuple):
        flat = not ring or not isinstance(ring[0], list | tuple | np.ndarray)
    else:
        flat = getattr(ring, "ndim", 0) == 1
    if not flat:
        raise ValueError(f"pyobj[{number}] must be a flat polygon x0, y0, x1, y1, ..., got {ring!r:.80}")
    numbers = len(ring) // 2 * 2
    if numbers >= 6:
        return ring[:numbers]
    # One or two vertices enclose nothing, nor do they with the last one repeated, which is what the rasteriser takes.
    return [*ring[:numbers], *(list(ring[numbers - 2 : numbers]) or [0, 0]) * (3 - numbers // 2)]


def _draw(polygons: tuple[int, ...], h: Any, w: Any) -> list[Rle]:
    """Of addresses and numbers of vertices, rings and objects, which the caller keeps."""
    # As pycocotools: JSON from other tools has sizes like 480.0.
    h, w = (int(side) if isinstance(side, float | np.floating) else side for side in (h, w))
    if any(isinstance(side, int) and side.bit_length() > 62 for side in (h, w)):  # the extension's integers end there
        raise ValueError(f"h and w is too large: at most 65535 a side and 2^28 pixels, got {h} x {w}")
    _extension.C.check_mask_size("h and w", h, w)
    rles: list[Rle] = _extension.C.polygons_to_rle(polygons, h, w, "coco", _threads())
    return rles
