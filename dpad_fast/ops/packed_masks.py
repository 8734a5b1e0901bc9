"""`PackedMasks`: masks as bits with their areas and boxes, and the counts of pixels of pairs of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from dpad_fast._native import extension
from dpad_fast._native.gpu_errors import is_gpu_failure
from dpad_fast.ops import _mask_ops as ops
from dpad_fast.ops._mask_parts import Counts, MaskParts, words_for
from dpad_fast.ops._mask_values import Dense, as_bytes, as_dense, check_one_device, check_one_size, check_size
from dpad_fast.ops._polygon_input import check_rule, gather, read_on_host

Rle: TypeAlias = dict[str, Any]

_FARTHEST = 1e7  # as kMaxCoordinate in csrc/core/masks/polygons.h


class PackedMasks:
    """N masks of one size as bits, with their areas and boxes.

    Pixel x of a row is bit x % 64 of the row's word x // 64; rows are padded with 0 bits to whole words. 10,000 masks
    of 640 x 480 take 384 MB, an eighth of what they take as bytes.

    Attributes:
        words: int64 [N, height, ceil(width / 64)], the bits.
        area: int64 [N], pixels.
        box: int64 [N, 4], (x1, y1, x2, y2) with x2 and y2 one past the last pixel; zeros for an empty mask.
        height: rows.
        width: columns.
    """

    __slots__ = ("area", "box", "height", "width", "words")

    def __init__(self, words: torch.Tensor, width: int) -> None:
        """Takes words [N, height, ceil(width / 64)] of which bits past the width must be 0."""
        if words.dim() == 3:
            check_size("height and width of words", words.shape[1], width)
        if words.dim() != 3 or words.dtype != torch.int64 or words.shape[2] != words_for(width):
            raise ValueError(
                f"words must be int64 [N, height, {words_for(width)}] for width {width}, "
                f"got {words.dtype} {list(words.shape)}"
            )
        if width % 64 and bool((words[:, :, -1:] & (-1 << width % 64)).any()):
            raise ValueError(f"words has bits set past column {width}")
        self._set((words, *ops.measure(words, width)), width)

    def _set(self, packed: MaskParts, width: int) -> None:
        self.words, self.area, self.box = packed
        self.height, self.width = int(self.words.shape[1]), int(width)

    @classmethod
    def _from_parts(cls, packed: MaskParts, width: int) -> PackedMasks:
        masks = cls.__new__(cls)
        masks._set(packed, width)
        return masks

    @classmethod
    def from_dense(cls, masks: Dense | Iterable[Dense], *, threshold: float | None = None) -> PackedMasks:
        """Packs masks.

        Args:
            masks: [N, H, W], or an iterable of masks [H, W], of which one at a time is held: bool, 0 and 1 of any
                dtype, or any numbers with a `threshold`; see `mask_iou`.
            threshold: masks that are not bool are set above it.

        Raises:
            ValueError: the shape is another, masks[i] has another size than masks[0], or a value is no mask's.
        """
        if isinstance(masks, torch.Tensor | np.ndarray):
            dense = as_dense("masks", masks, threshold)
            return cls._from_parts(ops.pack(dense, "masks"), dense.shape[2])
        parts, size = [], None
        for i, mask in enumerate(masks):
            one = as_bytes(f"masks[{i}]", mask, threshold)
            if one.dim() != 2 or (size is not None and one.shape != size):
                expected = "[H, W]" if size is None else f"{list(size)} as masks[0]"
                raise ValueError(f"masks[{i}] must be {expected}, got {list(one.shape)}")
            if size is None:
                check_size(f"masks[{i}]", *one.shape)
            size = one.shape
            parts.append(ops.pack(one, f"masks[{i}]"))
        if size is None:
            raise ValueError("masks is empty, so the masks' size is unknown; give an array [0, H, W]")
        words, area, box = (torch.cat(column) for column in zip(*parts, strict=True))
        return cls._from_parts((words, area, box), size[1])

    @classmethod
    def from_polygons(
        cls, polygons: Any, height: int, width: int, *, rule: str = "coco", outline: bool = False
    ) -> PackedMasks:
        """Draws polygons; see `rasterize_polygons`."""
        check_rule(rule, outline)
        check_size("height and width", height, width)
        return cls._drawn(polygons, height, width, rule, None)

    @classmethod
    def _drawn(
        cls, polygons: Any, height: int, width: int, rule: str, device: torch.device | str | None
    ) -> PackedMasks:
        """Draws polygons after the other arguments were checked; `rasterize_polygons` calls it too."""
        held = read_on_host(polygons, device)
        if held is not None:
            return cls._from_parts(ops.draw_on_cpu(held.args, height, width, rule), width)
        return cls._from_parts(ops.draw(*gather(polygons, device), height, width, rule), width)

    @classmethod
    def from_rle(cls, rles: Sequence[Mapping[str, Any]]) -> PackedMasks:
        """Unpacks COCO run lengths without going through bytes per pixel.

        Args:
            rles: dictionaries of one size: "size" (height, width) and "counts" (bytes or str in COCO's compressed
                form, or a list of run lengths).

        Raises:
            ValueError: `rles` is empty, or rles[i] is malformed, does not add up, or has another size than rles[0].
        """
        height, width = extension.C.rle_sizes(rles, "rles")
        words, area, box = ops.new_parts(len(rles), height, width)
        threads = torch.get_num_threads()
        extension.C.rle_words(rles, height, width, threads, words.data_ptr(), area.data_ptr(), box.data_ptr())
        return cls._from_parts((words, area, box), width)

    @classmethod
    def from_boxes(cls, boxes: Any, height: int, width: int) -> PackedMasks:
        """Fills boxes: a pixel is inside where its centre is.

        Args:
            boxes: [N, 4] of (x1, y1, x2, y2) in pixels, whole or not, inside the image or not.
            height: rows of the masks.
            width: columns of the masks.

        Raises:
            ValueError: `boxes` has another shape, or boxes[i] has a coordinate that is not finite or beyond 1e7 (on a
                GPU, where finding out would stall the stream, such a mask is empty).
        """
        corners = boxes if isinstance(boxes, torch.Tensor) else torch.from_numpy(_as_corners(boxes))
        corners = corners.to(torch.float64).reshape(-1, 4) if corners.numel() == 0 else corners.to(torch.float64)
        if corners.dim() != 2 or corners.shape[1] != 4:
            raise ValueError(f"boxes must be [N, 4], got {list(corners.shape)}")
        check_size("height and width", height, width)
        if corners.device.type == "cpu" and not torch.compiler.is_compiling():
            for i in (~(corners.abs() <= _FARTHEST)).any(dim=1).nonzero().flatten().tolist():
                raise ValueError(f"boxes[{i}] must lie within -1e7 to 1e7, got {tuple(corners[i].tolist())}")
        n = corners.shape[0]
        vertices = corners[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
        objects = torch.arange(n + 1, device=corners.device)
        rings = objects * 4
        return cls._from_parts(ops.draw(vertices, rings, objects, height, width, "center"), width)

    def __len__(self) -> int:
        return int(self.words.shape[0])

    def __getitem__(self, index: int | slice | torch.Tensor | npt.NDArray[Any] | Sequence[int]) -> PackedMasks:
        """The chosen masks, as PackedMasks also where `index` is one number; N booleans choose where they are true.

        Raises:
            IndexError: `index` is none of a number, a slice, [K] numbers or [N] booleans, or beyond the masks.
        """
        chosen = index if isinstance(index, slice) else _as_index(index, len(self), self.words.device)
        return PackedMasks._from_parts((self.words[chosen], self.area[chosen], self.box[chosen]), self.width)

    def __repr__(self) -> str:
        return f"PackedMasks({len(self)} of {self.height} x {self.width})"

    @property
    def parts(self) -> list[torch.Tensor]:
        """Words, area and box, as the registered ops take them."""
        return [self.words, self.area, self.box]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> PackedMasks:
        """The same masks on another device; `self` where they are there already."""
        if self.words.device == torch.device(device):
            return self
        words, area, box = (part.to(device, non_blocking=non_blocking) for part in self.parts)
        return PackedMasks._from_parts((words, area, box), self.width)

    def intersection(self, other: PackedMasks) -> torch.Tensor:
        """Pixels in both masks of each pair, int64 [N]."""
        return packed_counts(self, other, None, matrix=False)[0]

    def union(self, other: PackedMasks) -> torch.Tensor:
        """Pixels in either mask of each pair, int64 [N]."""
        return packed_counts(self, other, None, matrix=False)[1]

    def iou(self, other: PackedMasks, *, ignore: Dense | PackedMasks | None = None, empty: float = 0.0) -> torch.Tensor:
        """Paired IoU, float64 [N]; see `mask_iou`."""
        return ops.iou_of_counts(packed_counts(self, as_packed("b", other), ignore, matrix=False), empty)

    def to_dense(self) -> torch.Tensor:
        """Bool [N, height, width]."""
        return ops.unpack(self.words, self.width)

    def to_rle(self) -> list[Rle]:
        """N dictionaries in COCO's compressed form, as `pycocotools.mask.encode` gives them."""
        words, box = self.words.cpu().contiguous(), self.box.cpu().contiguous()
        rles: list[Rle] = extension.C.rle_from_words(
            words.data_ptr(), box.data_ptr(), len(self), self.height, self.width, torch.get_num_threads()
        )
        return rles


def as_packed(name: str, masks: object, threshold: float | None = None) -> PackedMasks:
    """`masks` itself, or dense masks [N, H, W] packed."""
    if isinstance(masks, PackedMasks):
        return masks
    dense = as_dense(name, masks, threshold)
    return PackedMasks._from_parts(ops.pack(dense, name), dense.shape[2])


def ignore_parts(ignore: Dense | PackedMasks | None, masks: PackedMasks, name: str) -> list[torch.Tensor]:
    """Packed `ignore` as the registered ops take it: nothing, one mask, or one per mask of `masks`."""
    if ignore is None:
        return []
    if not isinstance(ignore, PackedMasks):
        dense = as_dense("ignore", ignore, or_one=True)
        ignore = PackedMasks._from_parts(ops.pack(dense, "ignore"), dense.shape[-1])
    if (ignore.height, ignore.width) != (masks.height, masks.width) or len(ignore) not in (1, len(masks)):
        raise ValueError(
            f"ignore must be one mask or {len(masks)} ({name}) of {masks.height} x {masks.width}, "
            f"got {len(ignore)} of {ignore.height} x {ignore.width}"
        )
    check_one_device("masks and ignore", masks.words, ignore.words)
    return ignore.parts


def packed_counts(a: PackedMasks, b: PackedMasks, ignore: Dense | PackedMasks | None, *, matrix: bool) -> Counts:
    """Intersections and unions, int64 [N] of pairs or [N, M] of all pairs; `ignore` belongs to `b`."""
    check_one_size((a.height, a.width), (b.height, b.width))
    check_one_device("a and b", a.words, b.words)
    if not matrix and len(a) != len(b):
        raise ValueError(f"a and b must hold as many masks, got {len(a)} and {len(b)}")
    skip = ignore_parts(ignore, b, "one per mask of b")
    return ops.packed_counts(a.parts, b.parts, skip, a.width, matrix)


def _as_index(index: Any, n: int, device: torch.device) -> torch.Tensor:
    """The index as int64 [K] or bool [N]; any other shape would index words, areas and boxes differently."""
    if isinstance(index, int) and not isinstance(index, bool):
        if not -n <= index < n:
            raise IndexError(f"index must be within {n} masks, got {index}")
        index = [index]
    if isinstance(index, np.ndarray):
        index = index.copy()  # torch takes neither negative strides nor, without a warning, read-only memory
    try:
        chosen = index if isinstance(index, torch.Tensor) else torch.as_tensor(index, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        if is_gpu_failure(error):
            raise
        raise IndexError(f"index must be a number, a slice, [K] numbers or [N] booleans, got {index!r:.80}") from None
    if chosen.numel() == 0:
        chosen = chosen.to(torch.int64)  # torch takes an empty list for floats
    chooses = chosen.dtype == torch.bool
    if chosen.dim() > 1 or (chooses and chosen.dim() == 0) or chosen.is_floating_point() or chosen.is_complex():
        raise IndexError(
            f"index must be a number, a slice, [K] numbers or [N] booleans, got {chosen.dtype} {list(chosen.shape)}"
        )
    return chosen if chooses else chosen.reshape(-1).to(torch.int64)


def _as_corners(boxes: Any) -> npt.NDArray[np.float64]:
    try:
        return np.array(boxes).astype(np.float64, casting="same_kind")
    except (TypeError, ValueError):  # TypeError: strings, complex numbers, objects
        raise ValueError(f"boxes must hold rows of 4 numbers, got {boxes!r:.80}") from None
