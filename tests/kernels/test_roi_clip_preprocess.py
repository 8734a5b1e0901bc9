"""The Triton kernels of ROI preprocessing against the reference, bit for bit, in the interpreter or on a GPU.

The interpreter takes tens of microseconds for each operation on each line and tap, so sources are small, and large
results use large tiles: the arithmetic of a pixel is the same in any tile.
"""

from typing import Any

import numpy as np
import pytest
import torch

from dpad_fast.reference import roi_clip_preprocess as reference
from dpad_fast.testing import poisoned_memory

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
Box = tuple[int, int, int, int]


def pictures() -> list[np.ndarray[Any, Any]]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((6, 9), (13, 5), (1, 7), (4, 12))]


def check(
    device: torch.device,
    size: int,
    boxes: list[Box],
    index: list[int],
    *,
    dtype: torch.dtype = torch.float32,
    tile: tuple[int, int] | None = None,
    images: list[torch.Tensor] | None = None,
    arrays: list[np.ndarray[Any, Any]] | None = None,
    layout: torch.memory_format = torch.contiguous_format,
    **choices: str,
) -> None:
    from dpad_fast.kernels.roi_clip_preprocess import TILE_1, TILE_2, launch

    options = {"resize": "shortest", "interpolation": "bicubic", "center": "floor", "order": "pillow-13"} | choices
    arrays = pictures() if arrays is None else arrays
    tensors = [torch.from_numpy(array) for array in arrays] if images is None else images
    with poisoned_memory():
        out = torch.empty((len(boxes), 3, size, size), dtype=dtype, device=device, memory_format=layout)
        launch([t if device.type == "cpu" else t.to(device) for t in tensors], np.array(boxes, dtype=np.int64),
               np.array(index), out, mean=MEAN, std=STD, first=tile or TILE_1, second=tile or TILE_2,
               **options)  # fmt: skip
    expected = reference.roi_clip_preprocess(arrays, boxes, index, size=size, mean=MEAN, std=STD, **options)
    assert torch.equal(out.cpu(), torch.from_numpy(expected).to(dtype))


BOXES: list[Box] = [(0, 0, 9, 6), (1, 2, 4, 9), (-3, -1, 8, 4), (3, 0, 4, 1), (-8, -8, -2, -2)]
INDEX = [0, 1, 0, 2, 1]


@pytest.mark.parametrize("resize", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_crops_inside_across_and_outside(device: torch.device, resize: str, interpolation: str) -> None:
    check(device, 7, BOXES, INDEX, resize=resize, interpolation=interpolation, tile=(8, 8))


@pytest.mark.parametrize("center", ["floor", "round"])
@pytest.mark.parametrize("resize", ["shortest", "longest"])
def test_odd_margins(device: torch.device, center: str, resize: str) -> None:
    check(device, 4, [(0, 0, 9, 6), (0, 0, 5, 13)], [0, 1], resize=resize, center=center, tile=(4, 4))


@pytest.mark.parametrize("order", ["pillow-13", "pillow-12.3", "horizontal"])
def test_order_of_passes(device: torch.device, order: str) -> None:
    """Tall, wide and square boxes: the first pass runs down some of them and across the others."""
    check(device, 3, [(0, 0, 5, 13), (0, 0, 12, 4), (0, 0, 5, 6)], [1, 3, 0], order=order, tile=(4, 4))


def test_a_single_pixel_out(device: torch.device) -> None:
    check(device, 1, [(0, 0, 5, 3), (2, 1, 3, 2)], [0, 1], tile=(1, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tiles_that_do_not_divide_the_size(device: torch.device, dtype: torch.dtype) -> None:
    check(device, 63, [(0, 0, 9, 6)], [0], dtype=dtype)


@pytest.mark.parametrize("order", ["pillow-13", "horizontal"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_channels_last(device: torch.device, dtype: torch.dtype, order: str) -> None:
    """Tall and wide boxes, so that lanes run along either axis, in tiles that do not divide the size."""
    check(device, 5, [(0, 0, 5, 13), (0, 0, 9, 6)], [1, 0], dtype=dtype, order=order, tile=(4, 4),
          layout=torch.channels_last)  # fmt: skip


def test_other_layouts_are_refused(device: torch.device) -> None:
    from dpad_fast.kernels.roi_clip_preprocess import Plan, run

    nothing = torch.empty(0, device=device)
    with pytest.raises(ValueError, match="out must be contiguous or channels-last, got strides"):
        run(Plan(nothing, nothing, 0, 0, 0, 4, True), torch.empty(2, 3, 4, 8, device=device)[..., ::2])


@pytest.mark.parametrize(("size", "tile"), [(224, 256), (1000, 1024)])
def test_large_results(device: torch.device, size: int, tile: int) -> None:
    if device.type == "cuda":
        check(device, size, BOXES, INDEX)
    else:
        check(device, size, [(1, 2, 4, 4)], [0], tile=(tile, tile))


def test_strides_of_any_kind(device: torch.device) -> None:
    """Planar, four bytes a pixel, mirrored in memory by a slice, and one grey plane repeated by a stride of 0."""
    plain = [torch.from_numpy(picture) for picture in pictures()]
    planar = plain[0].permute(2, 0, 1).contiguous().permute(1, 2, 0)
    padded = torch.cat([plain[1], torch.full((13, 5, 1), 99, dtype=torch.uint8)], dim=2)
    wide = torch.zeros(2, 14, 3, dtype=torch.uint8)
    wide[::2, ::2] = plain[2]
    images = [planar, padded, wide[::2, ::2], plain[3]]
    check(device, 5, [(0, 0, 9, 6), (0, 1, 5, 9), (0, 0, 7, 1)], [0, 1, 2], images=images, tile=(8, 8))


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("order", ["pillow-13", "horizontal"])
def test_images_read_in_words(device: torch.device, channels: int, order: str) -> None:
    """Rows of 3 bytes a pixel start at any byte of a word; windows begin and end at any, inside and at the edges."""
    from dpad_fast.kernels._crop_plan import _pixel

    generator = torch.Generator().manual_seed(0)
    shapes = ((8, 7, channels), (4, 19, channels))
    whole = [torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) for shape in shapes]
    images = [image[..., :3] for image in whole]
    assert [_pixel(0, *i.stride()[1::-1], i.stride(2), i.shape[1], i.shape[0]) for i in images] == [channels] * 2
    boxes: list[Box] = [(0, 0, 7, 8), (1, 0, 6, 7), (2, 1, 5, 8), (0, 0, 19, 4), (-2, -1, 21, 5), (6, 1, 17, 3)]
    check(device, 6, boxes, [0, 0, 0, 1, 1, 1], images=images, arrays=[i.numpy() for i in images], order=order,
          tile=(8, 8))  # fmt: skip


def test_images_that_cannot_be_read_in_words() -> None:
    """Their address, end, rows or colours do not allow it."""
    from dpad_fast.kernels._crop_plan import _pixel

    facts = {"pointer": 64, "stride_x": 3, "stride_y": 12, "stride_c": 1, "width": 4, "height": 5}
    assert _pixel(**facts) == 3
    for other in (
        {"pointer": 65}, {"stride_y": 13, "height": 4}, {"stride_y": 0}, {"stride_y": -12}, {"stride_x": -3},
        {"stride_x": 1, "stride_c": 20}, {"width": 3}, {"stride_c": -1}, {"stride_x": 4, "stride_y": 18, "height": 1},
    ):  # fmt: skip
        assert _pixel(**facts | other) == 0, other


def test_no_box(device: torch.device) -> None:
    from dpad_fast.kernels.roi_clip_preprocess import launch

    launch([], np.empty((0, 4), np.int64), np.empty(0, np.int64), torch.empty(0, 3, 4, 4, device=device), mean=MEAN,
           std=STD, resize="squash", interpolation="bicubic", center="floor", order="pillow-13")  # fmt: skip


@pytest.mark.parametrize(
    ("boxes", "index", "message"),
    [
        ([[0, 0, 2, 2], [3, 1, 3, 5]], [0, 1], r"boxes\[1\] has zero area: \(3, 1, 3, 5\)"),
        ([[0, 0, 2, 2]], [2], r"image_index\[0\] must be from 0 to 1, got 2"),
        ([[0, 0, 2, 2]], [-1], r"image_index\[0\] must be from 0 to 1, got -1"),
        ([[0, 0, 2, 2**40]], [0], r"boxes\[0\] has a corner that is not finite or beyond 2\*\*30"),
        ([[0, 0, 2, 2**21]], [0], r"boxes\[0\] has a side of more than 2\*\*20 pixels"),
    ],
)
def test_boxes_are_refused_as_on_the_cpu(boxes: list[list[int]], index: list[int], message: str) -> None:
    from dpad_fast.ops import roi_clip_preprocess as on_cpu

    images = [torch.zeros(4, 6, 3, dtype=torch.uint8)] * 2
    with pytest.raises(ValueError, match=message):
        table(images, boxes, index)
    with pytest.raises(ValueError, match=message):
        on_cpu(images, torch.tensor(boxes), index, size=4)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_whole_numbers_of_any_width(dtype: type) -> None:
    images = [torch.zeros(4, 6, 3, dtype=torch.uint8), torch.zeros(7, 5, 3, dtype=torch.uint8)]
    found = table(images, [[1, 1, 2, 2], [0, 3, 4, 6]], [1, 0], dtype)
    assert columns(found, "extent_x", "extent_y", "corner_x", "corner_y") == [[5, 7, 1, 1], [6, 4, 0, 3]]


def columns(table: torch.Tensor, *names: str) -> list[list[int]]:
    from dpad_fast.kernels._crop_plan import COLUMN

    found: list[list[int]] = table[:, [COLUMN[name] for name in names]].tolist()
    return found


def table(images: list[torch.Tensor], boxes: list[list[int]], index: list[int], dtype: type = np.int64) -> torch.Tensor:
    from dpad_fast.kernels.roi_clip_preprocess import prepare

    options = {"resize": "shortest", "interpolation": "bicubic", "center": "floor", "order": "pillow-13"}
    return prepare(images, np.array(boxes, dtype), np.array(index, dtype), size=4, dtype=torch.float32,
                   device=torch.device("cpu"), mean=MEAN, std=STD, **options).table  # fmt: skip


def test_whole_images_are_written_out() -> None:
    from dpad_fast.ops.roi_clip_preprocess import WHOLE_IMAGE

    images = [torch.zeros(4, 6, 3, dtype=torch.uint8), torch.zeros(7, 5, 3, dtype=torch.uint8)]
    found = table(images, [[1, 1, 2, 2], [WHOLE_IMAGE] * 4], [0, 1])
    assert columns(found, "corner_x", "corner_y", "source_x", "source_y") == [[1, 1, 1, 1], [0, 0, 5, 7]]


def test_the_table_has_one_layout() -> None:
    """The names cover a row, each number once, and y's lie behind x's, where the kernels look for them."""
    from dpad_fast.kernels._crop_plan import COLUMN, COLUMNS

    assert sorted(COLUMN.values()) == list(range(COLUMNS))
    across = {name[:-2] for name in COLUMN if name.endswith("_x")}
    assert across == {name[:-2] for name in COLUMN if name.endswith("_y")}
    assert all(COLUMN[f"{name}_y"] == COLUMN[f"{name}_x"] + 1 for name in across)


def test_the_images_side_of_the_table_is_where_its_names_say() -> None:
    from dpad_fast.kernels._crop_plan import facts_of

    images = [torch.zeros(9, 8, 4, dtype=torch.uint8)[::2, 1:, :3], torch.zeros(3, 7, 5, dtype=torch.uint8).mT]
    found = table(images, [[1, 2, 5, 3], [0, 0, 2, 7]], [0, 1])
    names = ("pointer", "stride_x", "stride_y", "stride_c", "extent_x", "extent_y", "pixel_bytes")
    assert columns(found, *names) == [list(facts) for facts in facts_of(images)]
