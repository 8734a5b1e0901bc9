"""What the extension refuses itself: sizes and counts with which its loops would leave the memory they are given.

The public functions check more, and before. Addresses are taken as they are.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from dpad_fast._native import extension
from dpad_fast.ops._mask_parts import words_for

SIMD = "best"
NUMBERS = np.zeros(4096, np.int64)  # what the addresses of these tests point to
AT = NUMBERS.ctypes.data
HUGE = 1 << 62
SIZES = "height and width of masks"


def packed(n: int = 1) -> tuple[int, int, int, int]:
    return AT, AT, AT, n


def crops(count: int = 0, size: int = 4, height: int = 2, width: int = 2) -> None:
    extension.C.roi_clip_preprocess([(AT, height, width, "rgb", 6, 1)], AT, AT, count, size, "squash", "bicubic",
                                    "floor", "horizontal", [0.0] * 3, [1.0] * 3, "float32", SIMD, 1, AT)  # fmt: skip


def table(count: int = 0, size: int = 4, height: int = 2, width: int = 2) -> None:
    extension.C.gpu_crop_table([(AT, 3, 6, 1, width, height, 3)], AT, AT, count, size, "squash", "bicubic", "floor",
                               "horizontal", AT)  # fmt: skip


def counted(name: str, a: int = 1, b: int = 1, ignore: int | None = None, height: int = 2, width: int = 2) -> None:
    skip = None if ignore is None else packed(ignore)
    getattr(extension.C, name)(packed(a), packed(b), skip, height, width, 1, AT, AT)


def polygons(vertices: int = 0, rings: int = 0, n: int = 0, height: int = 2, width: int = 2) -> None:
    args = (AT, vertices, AT, rings, AT, n)
    extension.C.draw_polygons(args, height, width, "coco", 1, False, AT, AT, AT)


def counted_polygons(n: int, masks: int, ignore: int | None = None) -> None:
    skip = None if ignore is None else packed(ignore)
    extension.C.polygon_counts((AT, 0, AT, 0, AT, n), "coco", packed(masks), 2, 2, 0, skip, 1, AT, AT)


def advantages(n: int = 8, f: int = 1, ids: int = 0, group: int = 4, tokens: int = 0) -> None:
    extension.C.group_advantage(False, AT, n, f, ids, group, "std", 1e-6, 0, False, 0, "bits8", tokens, 0, AT)


def rewards(n: int = 0, m: int = 0, d: int = 0) -> None:
    extension.C.discriminative_reward("float32", AT, AT, AT, 0, n, m, d, "binary", 1.0, 0.0, AT, AT, AT)


def layer(kind: str = "float32", digits: int = 0, columns: int = 2, depth: int = 2, scale: int = 0) -> tuple[Any, ...]:
    return kind, digits, columns, depth, AT, scale, 0


def linear(rows: int = 0, **parts: Any) -> None:
    extension.C.tower_linear(AT, rows, (0, 0, 0.0), layer(**parts), "store", 1, AT)


def mlp(up: tuple[Any, ...], down: tuple[Any, ...]) -> None:
    extension.C.tower_mlp(AT, 0, (0, 0, 0.0), up, down, 1)


def attention(offsets: list[int], first: list[int], last: list[int], n: int | None = None, heads: int = 1) -> None:
    places = [np.array(values, np.int64) for values in (offsets, first, last)]
    extension.C.path_attention(len(first) if n is None else n, AT, *(place.ctypes.data for place in places), heads, 4,
                               False, 1, AT, 4, AT, AT, 4, AT)  # fmt: skip


def bins(width: int, offsets: tuple[int, ...] = (0,), keys: int = 0) -> None:
    count = len(offsets) - 1
    lengths = [right - left for left, right in pairwise(offsets)]
    texts = np.array([0] * 2 * keys + [0] * keys + [*offsets, *[0] * count, *lengths], np.int64)
    extension.C.bins_of((texts.ctypes.data, keys, keys, count), width)


C = extension.C
REFUSED: list[tuple[str, Callable[[], Any], str]] = [
    ("crops, negative", lambda: crops(count=-1), "the number of boxes must be from 0 to 2147483647, got -1"),
    ("crops, size 0", lambda: crops(size=0), "size must be from 1 to 1048576, got 0"),
    ("crops, size", lambda: crops(size=HUGE), "size must be from 1 to 1048576"),
    ("crops, side 0", lambda: crops(width=0), r"images\[0\] must have sides from 1 to 2\*\*30, got 2 x 0"),
    ("crops, side", lambda: crops(height=HUGE), r"images\[0\] must have sides"),
    ("table, negative", lambda: table(count=-1), "the number of boxes"),
    ("table, size", lambda: table(size=-5), "size must be from 1 to 1048576, got -5"),
    ("table, side", lambda: table(width=-1), r"images\[0\] must have sides"),
    ("digest, negative", lambda: C.digest_pictures([(AT, -1, 3)], 1), "pixels of a picture"),
    ("digest, step", lambda: C.digest_pictures([(AT, 1, 5)], 1), "bytes from a pixel to the next must be from 3 to 4"),
    ("pictures", lambda: C.pack_pictures([(AT, 1, -1, 3, 3, 1, 0)], AT, 1), "a picture's width"),
    ("pictures, place", lambda: C.pack_pictures([(AT, 1, 1, 3, 3, 1, -8)], AT, 1), "a picture's place"),
    ("pack, wide", lambda: C.pack_masks(AT, 1, 1, 1 << 20, 1, AT, AT, AT), f"{SIZES} is too large"),
    ("pack, overflow", lambda: C.pack_masks(AT, 1, 1 << 40, 1 << 40, 1, AT, AT, AT), f"{SIZES} is too large"),
    ("pack, negative", lambda: C.pack_masks(AT, -1, 2, 2, 1, AT, AT, AT), "the number of masks"),
    ("unpack", lambda: C.unpack_masks(AT, 1, -2, 2, 1, AT), f"{SIZES} must not be negative"),
    ("measure", lambda: C.measure_masks(AT, 1, 2, 1 << 20, AT, AT), f"{SIZES} is too large"),
    ("dense", lambda: C.dense_pair_counts(AT, AT, 0, 0, 1, HUGE, 1, AT, AT), "pixels must be from 0 to 268435456"),
    ("dense, negative", lambda: C.dense_pair_counts(AT, AT, 0, 0, -1, 4, 1, AT, AT), "the number of masks"),
    ("matrix", lambda: C.dense_matrix_counts(AT, -1, AT, packed(), 2, 2, 1, AT, AT), "the number of masks"),
    ("pairs, sizes", lambda: counted("packed_pair_counts", width=1 << 20), f"{SIZES} is too large"),
    ("pairs, b", lambda: counted("packed_pair_counts", 3, 2), "the number of masks of b must be from 3 to 3, got 2"),
    ("pairs, ignore", lambda: counted("packed_pair_counts", 3, 3, 2), "ignore must hold one mask or 3, got 2"),
    ("all pairs, ignore", lambda: counted("packed_matrix_counts", 2, 3, 2), "ignore must hold one mask or 3, got 2"),
    ("all pairs, negative", lambda: counted("packed_matrix_counts", -1, 3), "the number of masks must be from 0"),
    ("ratios", lambda: C.iou_ratios(AT, AT, -1, 0.0, AT), "the number of counts"),
    ("points", lambda: C.inscribed_points(AT, -1, 4, AT), "height must be from 0"),
    ("polygons, negative", lambda: polygons(n=-1), "the number of masks must be from 0"),
    ("polygons, rings", lambda: polygons(rings=-1), "the number of rings must be from 0"),
    ("polygons, vertices", lambda: polygons(vertices=-1), "the number of vertices must be from 0"),
    ("polygons, sizes", lambda: polygons(height=1 << 20), f"{SIZES} is too large"),
    ("polygons as runs", lambda: C.polygons_to_rle((AT, 0, AT, 0, AT, 0), HUGE, 2, "coco", 1), f"{SIZES} is too large"),
    ("polygons, masks", lambda: counted_polygons(2, 1), "the number of polygons must be from 0 to 1, got 2"),
    ("polygons, ignore", lambda: counted_polygons(0, 3, 2), "ignore must hold one mask or 3, got 2"),
    ("runs, negative", lambda: C.rle_encode(AT, -1, 2, 2, 1), "the number of masks"),
    ("runs, sizes", lambda: C.rle_encode(AT, 1, 1 << 40, 1 << 40, 1), f"{SIZES} is too large"),
    ("runs of words", lambda: C.rle_from_words(AT, AT, 1, 2, HUGE, 1), f"{SIZES} is too large"),
    ("advantage, n", lambda: advantages(n=-8), "the number of rewards"),
    ("advantage, terms", lambda: advantages(f=-1), "the number of terms"),
    ("advantage, tokens", lambda: advantages(tokens=-1), "the number of tokens"),
    ("advantage, no group", lambda: advantages(group=0), "group_size must be from 1"),
    ("advantage, rest", lambda: advantages(n=9), "group_size must divide 9 rewards, got 4"),
    ("reward, n", lambda: rewards(n=-1), "the number of texts"),
    ("reward, d", lambda: rewards(d=-1), "the width of embeddings"),
    ("layer, depth 0", lambda: C.digit_bytes(2, 0, 2), "depth must be from 1"),
    ("layer, digits", lambda: C.digit_bytes(2, 2, 4), "digits must be from 2 to 3, got 4"),
    ("layer, columns", lambda: C.packed_elements(HUGE, 2, True), "columns must be from 1"),
    ("linear, rows", lambda: linear(rows=-1), "rows must be from 0"),
    ("linear, depth", lambda: linear(depth=0), "depth must be from 1"),
    ("linear, no digits", lambda: linear(kind="digits2", scale=AT), "digits must be from 2 to 3, got 0"),
    ("linear, a digit less", lambda: linear(kind="digits3", digits=2, scale=AT), "digits must be from 3 to 3, got 2"),
    ("linear, digits", lambda: linear(digits=2), "digits must be from 0 to 0, got 2"),
    ("linear, scale", lambda: linear(kind="int16"), "scale is missing"),
    ("mlp, depth", lambda: mlp(layer(columns=4), layer(depth=5)), "depth of the second layer must be from 4 to 4"),
    ("mlp, columns", lambda: mlp(layer(columns=4), layer(columns=3, depth=4)), "columns of the second layer"),
    ("mlp, products", lambda: mlp(layer(), layer("int16", scale=AT)), "both layers must be of the same products"),
    ("norm", lambda: C.tower_layer_norm(AT, 1, 4, (0, AT, 0.0), 1, AT), "the norm's weight is missing"),
    ("norm, bias", lambda: C.tower_layer_norm(AT, 1, 4, (AT, 0, 0.0), 1, AT), "the norm's bias is missing"),
    ("norm, depth", lambda: C.tower_layer_norm(AT, 1, -4, (AT, AT, 0.0), 1, AT), "depth must be from 1"),
    ("attention, negative", lambda: attention([0], [], [], n=-1), "sequences must be from 0"),
    ("attention, heads", lambda: attention([0], [], [], heads=0), "heads must be from 1"),
    ("attention, falling", lambda: attention([0, 3, 1], [0, 0], [1, 1]), "offsets must be from 3"),
    ("attention, last", lambda: attention([0, 3], [0], [4]), "last must be from 0 to 3, got 4"),
    ("bins, no width", lambda: bins(0), "width must be from 1 to 2147483647, got 0"),
    ("bins, width", lambda: bins(HUGE, (0, 1), 1), "width must be from 1"),
    ("bins, falling", lambda: bins(8, (0, 3, 2), 2), "the lengths of packed texts do not add up"),
    ("written bins", lambda: C.write_bins((AT, 0, 0, 0), 0, [0] * 8, AT), "width must be from 1 to 2147483647, got 0"),
    ("attention, first", lambda: attention([0, 3], [-1], [3]), "first must be from 0 to 3, got -1"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_box_of_words_must_lie_in_the_mask() -> None:
    words, box = np.zeros((1, 2, words_for(5)), np.uint64), np.array([[0, 0, 6, 2]])
    with pytest.raises(ValueError, match=r"box\[0\] does not lie in the mask"):
        C.rle_from_words(words.ctypes.data, box.ctypes.data, 1, 2, 5, 1)


def test_nothing_of_anything_is_taken() -> None:
    """The least that is allowed: no mask, no row, no box."""
    for call in (crops, table, polygons, rewards, linear):
        call()
    advantages(n=0)
    counted("packed_pair_counts", 0, 0, 1)
    attention([0], [], [])
    C.pack_masks(AT, 0, 0, 0, 1, AT, AT, AT)
    assert C.rle_encode(AT, 0, 2, 2, 1) == []


cuda = pytest.mark.skipif(not hasattr(C, "cuda_pack"), reason="the extension was built without CUDA")
ON = (0, 0)
ON_CUDA: list[tuple[str, Callable[[], Any], str]] = [
    ("pack", lambda: C.cuda_pack(AT, -1, 2, 2, AT, AT, AT, ON), "the number of masks"),
    ("unpack", lambda: C.cuda_unpack(AT, 1, 2, 1 << 20, AT, ON), f"{SIZES} is too large"),
    ("measure", lambda: C.cuda_measure(AT, 1, -2, 2, AT, AT, ON), f"{SIZES} must not be negative"),
    ("dense", lambda: C.cuda_dense_counts(AT, AT, AT, 3, 1, 4, AT, AT, ON), "the step of ignore must be from 4 to 4"),
    ("packed", lambda: C.cuda_packed_counts(AT, AT, 0, 0, 1, -4, AT, AT, ON), "the size of masks"),
    ("matrix", lambda: C.cuda_matrix_counts(AT, AT, 1, AT, AT, -1, 0, 0, 4, AT, AT, ON), "the number of masks"),
    ("ratio", lambda: C.cuda_ratio(AT, AT, -1, 0.0, AT, ON), "the number of counts"),
    ("bands", lambda: C.cuda_bands(-1, 2), f"{SIZES} must not be negative"),
    ("draw", lambda: C.cuda_draw((AT, 0, AT, -1, AT, 0), "coco", 2, 2, AT, AT, AT, AT, ON), "the number of rings"),
    ("draw dense", lambda: C.cuda_draw_dense((AT, 0, AT, 0, AT, 1), "coco", 2, HUGE, AT, ON), f"{SIZES} is too large"),
    ("draw counts", lambda: C.cuda_draw_counts((AT, 0, AT, 0, AT, -1), "coco", 2, 2, AT, 1, 0, 0, 0, AT, AT, ON),
     "the number of masks"),
]  # fmt: skip


@cuda
@pytest.mark.parametrize(("call", "message"), [case[1:] for case in ON_CUDA], ids=[case[0] for case in ON_CUDA])
def test_refused_before_a_launch(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


class MadeOnDemand:
    """A sequence whose items nobody else holds."""

    def __init__(self, items: list[Callable[[], Any]]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        return self.items[i]()


def test_items_that_only_the_call_holds_live_as_long_as_it() -> None:
    runs = MadeOnDemand([lambda: {"size": [2, 3], "counts": [1, 2, 3]}] * 40)
    assert C.rle_sizes(runs, "rles") == (2, 3)
    rings = MadeOnDemand([lambda: np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0]])] * 40)
    assert C.Polygons(rings).arrays()[0].tolist() == [[0, 0], [2, 0], [2, 2]] * 40
    texts = MadeOnDemand([lambda i=i: [7 + i, 9] for i in range(4000)])  # type: ignore[misc]
    places, ((numbers, *_),) = C.pack_texts(texts, "last", 0, 8000, 4000)
    assert places.tolist() == list(range(4000))
    assert numbers[:6].tolist() == [7, 9, 8, 9, 9, 9]


def unaligned(values: Any, dtype: type) -> np.ndarray[Any, Any]:
    whole = np.array(values, dtype)
    found: np.ndarray[Any, Any] = np.ndarray(whole.shape, dtype, bytearray(b"x" + whole.tobytes()), 1)
    assert not found.flags.aligned
    return found


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int32, np.int64])
def test_arrays_that_begin_at_any_byte(dtype: type) -> None:
    """Under UBSan a read through a pointer that is not aligned is an error."""
    ring = [[0, 0], [4, 0], [4, 4]]
    for given in (unaligned(ring, dtype), unaligned(ring, dtype).ravel(), [unaligned(ring, dtype)]):
        assert C.Polygons([given]).arrays()[0].tolist() == ring
    runs = [{"size": [2, 3], "counts": unaligned([1, 2, 3], dtype)}]
    assert C.rle_canonical(runs, "rles") == C.rle_canonical([{"size": [2, 3], "counts": [1, 2, 3]}], "rles")


def test_what_reading_an_item_drops_lives_until_it_is_read() -> None:
    class Side:
        """A whole number that empties its dictionary when it is read."""

        def __index__(self) -> int:
            item.clear()
            return 2

    item: dict[str, Any] = {}
    for _ in range(20):
        item.update(size=[Side(), 3], counts=bytes([48 + 6]))
        assert C.rle_sizes([item], "rles") == (2, 3)

    rings: list[Any] = []

    class Number:
        """A coordinate that empties the list of rings when it is read."""

        def __float__(self) -> float:
            rings.clear()
            return 1.0

    rings.append([Number(), 0.0, 2.0, 0.0, 2.0, 2.0])
    assert C.Polygons(rings).arrays()[0].tolist() == [[1, 0], [2, 0], [2, 2]]

    class Id:
        """A token that empties its row when it is read."""

        def __index__(self) -> int:
            row.clear()
            return 3

    row: list[Any] = [Id(), *range(1000, 5000)]
    places, ((numbers, *_),) = C.pack_texts([row], "last", 0, 100, 1)
    assert (places.tolist(), numbers[0]) == ([0], 3)


def test_a_table_of_words_may_be_cleared_while_lists_of_ids_are_made() -> None:
    class Finalizer:
        """Garbage that clears the table when it is collected, as a thread may that a finalizer lets run."""

        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            cleared.append(len(table))
            table.clear()

    table, cleared = C.WordTable(1, 2, 64), []  # type: ignore[var-annotated]
    words = [f"w{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(600)]
    ids = [[10 * i, 10 * i + 1] for i in range(600)]
    whole = [1, *(number for pair in ids for number in pair), 2]
    before = gc.get_threshold()
    try:
        for more in range(40):
            table.learn(words, ids)
            gc.collect()
            gc.disable()
            Finalizer()
            gc.set_threshold(gc.get_count()[0] + 1 + more % 12, 1000, 1000)  # a collection at that many lists
            gc.enable()
            rows, _ = table.encode([" ".join(words)] * 20)
            gc.disable()
            assert all(row is None or row == whole for row in rows)
    finally:
        gc.set_threshold(*before)
        gc.enable()
    assert cleared
    assert max(cleared) == 600
