"""roi_clip_preprocess: what it takes and refuses, whose memory it reads and writes, how torch gets along with it."""

import importlib
import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dpad_fast.ops import _crop_input, roi_clip_preprocess
from dpad_fast.testing import noisy_pixels, poisoned_memory

module = importlib.import_module("dpad_fast.ops.roi_clip_preprocess")


def test_boxes_as_lists_tensors_and_fractions():
    image = torch.from_numpy(noisy_pixels(50, 60))
    want = roi_clip_preprocess([image], [(2, 4, 20, 30), None], [0, 0], size=20)
    whole = module.WHOLE_IMAGE
    table = torch.tensor([[2, 4, 20, 30], [whole] * 4])
    assert torch.equal(roi_clip_preprocess([image], table, torch.zeros(2, dtype=torch.int32), size=20), want)
    halves = torch.tensor([[2.5, 3.5, 19.5, 30.49]])  # rounded half to even, as Pillow does
    assert torch.equal(roi_clip_preprocess([image], halves, [0], size=20), want[:1])
    assert torch.equal(roi_clip_preprocess([image], halves.numpy(), [0], size=20), want[:1])
    assert torch.equal(roi_clip_preprocess([image], halves.tolist(), [0], size=20), want[:1])
    assert torch.equal(roi_clip_preprocess([image], halves.numpy().astype(">f8"), [0], size=20), want[:1])
    rows = np.array([(2, 4, 20, 30), None], dtype=object)
    assert torch.equal(roi_clip_preprocess([image], rows, np.array([0, 0], ">i8"), size=20), want)
    assert roi_clip_preprocess([image], [], [], size=20).shape == (0, 3, 20, 20)


ROWS = st.one_of(
    st.none(),
    st.lists(st.one_of(st.integers(-(2**62), 2**62), st.floats(), st.booleans()), min_size=4, max_size=4).map(tuple),
    st.lists(st.integers(-9, 9), max_size=5),
    st.sampled_from(["abcd", (1, "2", 3.0, 4), (1, None, 2, 3), (10**400, 0, 1, 1), 7]),
)


@given(st.lists(ROWS, max_size=12))
def test_rows_are_read_at_once_as_one_by_one(rows):
    def one_by_one():
        try:
            return [_crop_input._as_row(box, i) for i, box in enumerate(rows)]
        except ValueError:
            return None

    together = _crop_input._as_rows(rows)
    if together is not None:
        assert together.tolist() == one_by_one()
    plain = all(box is None or (isinstance(box, (tuple, list)) and None not in box) for box in rows)
    if together is None and plain and rows:
        assert one_by_one() is None  # which has the message


def test_a_row_among_many_is_refused_by_its_number():
    boxes = [(0, 0, 2, 2)] * 20
    for bad in [(0, 0, float("nan"), 1), (0, 0, 1), (0, 0, 2**61, 1), "abc"]:
        with pytest.raises(ValueError, match=r"boxes\[17\] must be None or 4 finite numbers"):
            roi_clip_preprocess([noisy_pixels(5, 5)], [*boxes[:17], bad, *boxes[18:]], [0] * 20, size=4)


BAD = [
    ({"boxes": [None, (3, 3, 3, 9)], "image_index": [0, 0]}, r"boxes\[1\] has zero area: \(3, 3, 3, 9\)"),
    ({"boxes": [(3, 9, 5, 3)]}, r"boxes\[0\] has zero area"),
    ({"boxes": [(0.4, 0, 0.5, 5)]}, r"boxes\[0\] has zero area"),
    ({"boxes": torch.tensor([[0.0, 0.0, float("nan"), 5.0]])}, r"boxes\[0\] has a corner that is not finite"),
    ({"boxes": [(0, 0, float("inf"), 5)]}, r"boxes\[0\] must be None or 4 finite numbers"),
    ({"boxes": [(0, 0, 5)]}, r"boxes\[0\] must be None or 4 finite numbers"),
    ({"boxes": [(0, 0, 2**31, 5)]}, r"boxes\[0\] has a corner"),
    ({"boxes": [(0, 0, 2**21, 5)]}, r"boxes\[0\] has a side of more than 2\*\*20"),
    ({"boxes": [(0, 0, 10**30, 5)]}, r"boxes\[0\] must be None or 4 finite"),
    ({"boxes": torch.zeros(1, 3)}, r"boxes must be numbers \[K, 4\]"),
    ({"boxes": [(0, 0, None, 5)]}, r"boxes\[0\] must be None or 4 finite numbers.*got \(0, 0, None, 5\)"),
    ({"boxes": [{"x1": 0}]}, r"boxes\[0\] must be None or 4 finite numbers.*got {'x1': 0}"),
    ({"boxes": [7]}, r"boxes\[0\] must be None or 4 finite numbers.*got 7"),
    ({"boxes": [(0, 0, 10**400, 5)]}, r"boxes\[0\] must be None or 4 finite numbers"),
    ({"boxes": np.array([["0", "0", "5", "5"]])}, "boxes must be numbers, got an array of <U1"),
    ({"boxes": [None], "image_index": [None]}, "image_index must be numbers, got an array of object"),
    ({"boxes": [None], "image_index": ["0"]}, "image_index must be numbers, got an array of <U1"),
    ({"boxes": [None, None]}, "image_index is needed"),
    ({"boxes": [None, None], "image_index": [0]}, "differ in number"),
    ({"boxes": [None], "image_index": [1]}, r"image_index\[0\] must be from 0 to 0, got 1"),
    ({"boxes": [None], "image_index": [-1]}, r"image_index\[0\] must be from 0 to 0, got -1"),
    ({"boxes": [None], "image_index": [0.5]}, "image_index must be integers"),
    ({"size": 0}, "size must be an integer"),
    ({"size": 10**6}, "size must be an integer"),
    ({"size": 2.0}, "size must be an integer"),
    ({"resize": "stretch"}, "resize must be one of shortest, squash, longest, got 'stretch'"),
    ({"interpolation": "lanczos"}, "interpolation must be one of"),
    ({"center": "up"}, "center must be one of"),
    ({"order": "vertical"}, "order must be None or one of"),
    ({"mean": (1, 2)}, "mean must be 3 finite numbers"),
    ({"mean": 0.5}, "mean must be 3 finite numbers, got 0.5"),
    ({"mean": (1, None, 1)}, r"mean must be 3 finite numbers, got \(1, None, 1\)"),
    ({"mean": (1, 2, 1e300)}, "mean must be 3 finite numbers"),
    ({"std": (1, 0, 1)}, r"std\[1\] must not be 0"),
    ({"std": (1, 1, 1e-60)}, r"std\[2\] must not be 0 in float32"),
    ({"std": (1, 1, float("nan"))}, "std must be 3 finite"),
    ({"dtype": torch.float64}, "dtype must be"),
    ({"out": torch.empty(1, 3, 9, 9)}, r"out must be \[1, 3, 224, 224\]"),
    ({"out": torch.empty(1, 3, 224, 224, dtype=torch.float16)}, "out must be torch.float32"),
    ({"out": torch.empty(1, 3, 224, 448)[..., ::2]}, "out must be contiguous"),
]


@pytest.mark.parametrize(("wrong", "message"), BAD)
def test_bad_arguments(wrong, message):
    arguments = {"boxes": None, **wrong}
    with pytest.raises(ValueError, match=message):
        roi_clip_preprocess([torch.zeros(8, 9, 3, dtype=torch.uint8)], **arguments)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("a.jpg", r"images\[1\] must be a PIL image"),
        (np.zeros((4, 4, 3), np.uint16), r"images\[1\] must be uint8, got uint16"),
        (torch.zeros(4, 4, 3), r"images\[1\] must be uint8, got torch.float32"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8).to_sparse(), r"images\[1\] must be uint8.*torch.sparse_coo"),
        (torch.zeros(5, 5, 2, dtype=torch.uint8), r"images\[1\] must be \[H, W\]"),
        (torch.zeros(1, 4, 4, 3, dtype=torch.uint8), r"images\[1\] must be \[H, W\]"),
        (np.zeros((0, 4, 3), np.uint8), r"images\[1\] has no pixel"),
        (Image.new("RGB", (0, 4)), r"images\[1\] has no pixel"),
    ],
)
def test_bad_images(image, message):
    with pytest.raises(ValueError, match=message):
        roi_clip_preprocess([torch.zeros(4, 4, 3, dtype=torch.uint8), image], None)


def test_what_is_no_list_of_images():
    with pytest.raises(ValueError, match="images must be a list of images, got Image"):
        roi_clip_preprocess(Image.new("RGB", (4, 4)), None)


def test_a_whole_image_too_long_is_named_by_its_corners():
    with pytest.raises(ValueError, match=r"boxes\[0\] has a side of more than .* pixels: \(0, 0, 2000000, 1\)"):
        roi_clip_preprocess([np.zeros((1, 2_000_000), np.uint8)], None)


def test_images_on_two_devices():
    here = torch.zeros(4, 4, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"images\[1\] is on meta, but images\[0\] on cpu"):
        roi_clip_preprocess([here, here.to("meta")], None)


def test_no_images():
    with pytest.raises(ValueError, match="images is empty"):
        roi_clip_preprocess([], None)


def test_read_only_and_reversed_arrays():
    array = noisy_pixels(30, 40)
    want = roi_clip_preprocess([array], None, size=16)
    frozen = array.copy()
    frozen.flags.writeable = False
    assert torch.equal(roi_clip_preprocess([frozen], None, size=16), want)
    assert torch.equal(roi_clip_preprocess([np.ascontiguousarray(array[::-1])[::-1]], None, size=16), want)


def test_nothing_is_read_behind_the_last_pixel():
    # The view ends with the third byte of its last pixel; the page behind may not exist.
    flat = torch.from_numpy(noisy_pixels(1, 20 * 31, 4).reshape(-1))
    view = flat[:-1].as_strided((20, 31, 3), (31 * 4, 4, 1))
    want = roi_clip_preprocess([view.contiguous()], None, size=16)
    assert torch.equal(roi_clip_preprocess([view], None, size=16), want)


def test_pillow_lends_its_memory():
    images = importlib.import_module("dpad_fast._native.images")
    image = Image.fromarray(noisy_pixels(30, 40))
    pixels = images.as_pixels(image, "image")
    image.putpixel((5, 7), (1, 2, 3))
    assert pixels.shape == (30, 40, 3)
    assert pixels.stride() == (160, 4, 1)
    assert pixels[7, 5].tolist() == [1, 2, 3]  # the same memory
    del image
    assert pixels[7, 5].tolist() == [1, 2, 3]  # kept alive by the loan


def test_without_the_loan_the_result_is_the_same(monkeypatch):
    images = importlib.import_module("dpad_fast._native.images")
    image = Image.fromarray(noisy_pixels(60, 80))
    want = roi_clip_preprocess([image], None, size=32)
    monkeypatch.setattr(images, "_borrowed", lambda image: None)
    assert torch.equal(roi_clip_preprocess([image], None, size=32), want)


SAMPLE = (
    [
        torch.from_numpy(noisy_pixels(20, 30)),
        torch.from_numpy(noisy_pixels(3, 12, 10)).permute(1, 2, 0)[..., :3].contiguous(),
    ],
)
OPTIONS = (
    torch.tensor([[1, 2, 9, 11], [0, 0, 10, 3]]),
    torch.tensor([0, 1]),
    *(16, "shortest", "bicubic", "floor", "pillow-13", [0.5, 0.5, 0.5], [0.4, 0.5, 0.6]),
)


@pytest.mark.filterwarnings("ignore")
def test_opcheck():
    torch.library.opcheck(torch.ops.dpad_fast.roi_clip_preprocess.default, (*SAMPLE, *OPTIONS, torch.bfloat16))
    out = torch.empty(2, 3, 16, 16)
    torch.library.opcheck(torch.ops.dpad_fast.roi_clip_preprocess_out.default, (*SAMPLE, *OPTIONS, out))


@pytest.mark.filterwarnings("ignore")
def test_compile_without_a_graph_break():
    images = [torch.from_numpy(noisy_pixels(20, 30)), torch.from_numpy(noisy_pixels(40, 13))]
    boxes, index = torch.tensor([[1, 2, 9, 11], [0, 0, 10, 3], [3, 3, 8, 9]]), torch.tensor([0, 1, 1])

    def run(images, boxes, index):
        return roi_clip_preprocess(images, boxes, index, size=16) * 2

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(images, boxes, index), run(images, boxes, index))


class Crops(torch.utils.data.Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, i):
        torch.set_num_threads(2)  # so that the worker uses a pool of its own
        images = [torch.from_numpy(noisy_pixels(60, 80, seed=i + j)) for j in range(4)]
        return roi_clip_preprocess(images, None, size=32)


def test_in_data_loader_workers_after_the_pool_was_used():
    here = [Crops()[i] for i in range(6)]
    loader = torch.utils.data.DataLoader(Crops(), num_workers=2, batch_size=None, multiprocessing_context="fork")
    for mine, theirs in zip(here, loader, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_after_fork():
    want = Crops()[0]
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(Crops()[0], want) else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0


@pytest.mark.parametrize("dtype", module.DTYPES)
def test_channels_last(dtype):
    images = [noisy_pixels(20, 31), noisy_pixels(9, 14)]
    boxes, index = [(1, 2, 18, 17), None, (0, 0, 14, 9)], [0, 0, 1]
    planes = roi_clip_preprocess(images, boxes, index, size=13, dtype=dtype)
    made = roi_clip_preprocess(images, boxes, index, size=13, dtype=dtype, memory_format=torch.channels_last)
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(made, planes)
    with poisoned_memory():
        out = torch.empty((3, 3, 13, 13), dtype=dtype, memory_format=torch.channels_last)
        assert roi_clip_preprocess(images, boxes, index, size=13, dtype=dtype, out=out) is out
    assert torch.equal(out, planes)
    with pytest.raises(ValueError, match="memory_format must be contiguous_format or channels_last"):
        roi_clip_preprocess(images, boxes, index, size=13, memory_format=torch.preserve_format)


def test_naming_the_device_of_the_images_changes_nothing():
    images = [noisy_pixels(20, 31), noisy_pixels(9, 14)]
    assert torch.equal(
        roi_clip_preprocess(images, None, size=8, device="cpu"), roi_clip_preprocess(images, None, size=8)
    )
