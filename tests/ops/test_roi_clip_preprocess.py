"""roi_clip_preprocess against Pillow, transformers, open_clip and the plain reference."""

import importlib
import os
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dpad_fast.ops import roi_clip_preprocess
from dpad_fast.reference import roi_clip_preprocess as reference
from dpad_fast.testing import cases as times
from dpad_fast.testing import poisoned_memory

module = importlib.import_module("dpad_fast.ops.roi_clip_preprocess")
RESAMPLE = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def noise(height, width, channels=3, seed=0):
    # Half of it is black or white, so that sums overshoot 0 and 255 and have to be clipped.
    rng = np.random.default_rng([seed, height, width])
    pixels = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    extreme = rng.integers(0, 2, (height, width, channels), dtype=np.uint8) * 255
    return np.where(rng.random((height, width, channels)) < 0.5, pixels, extreme)


def by_pillow(image, box, size, resize, interpolation, center):
    """The processors' steps with Pillow itself: uint8 [size, size, 3]."""
    cropped = image if box is None else image.crop(box)
    height, width = reference.resized_size(cropped.height, cropped.width, size, resize)
    resized = cropped.resize((width, height), RESAMPLE[interpolation])
    return reference.center_crop_or_pad(np.asarray(resized), size, center)


def plain(image, box, **options):
    return reference.normalised(by_pillow(image, box, **options), module.CLIP_MEAN, module.CLIP_STD)


@contextmanager
def at_level(level):
    before, module._simd_level = module._simd_level, level
    try:
        yield
    finally:
        module._simd_level = before


@st.composite
def cases(draw):
    longest = draw(st.sampled_from([3, 40, 300]))
    height, width = draw(st.integers(1, longest)), draw(st.integers(1, longest))
    margin = draw(st.sampled_from([0, 0, 30]))
    x1 = draw(st.integers(-margin, width - 1))
    y1 = draw(st.integers(-margin, height - 1))
    box = (x1, y1, draw(st.integers(x1 + 1, width + margin)), draw(st.integers(y1 + 1, height + margin)))
    options = {
        "size": draw(st.sampled_from([1, 7, 16, 33, 64, 100])),
        "resize": draw(st.sampled_from(module.RESIZES)),
        "interpolation": draw(st.sampled_from(module.INTERPOLATIONS)),
        "center": draw(st.sampled_from(module.CENTERS)),
    }
    return noise(height, width, seed=draw(st.integers(0, 9))), draw(st.sampled_from([box, None])), options


@settings(max_examples=times(1500), deadline=None)
@given(
    cases(), st.sampled_from(["hwc", "chw", "rgbx", "pil", "strided"]), st.sampled_from(["scalar", "avx2", "avx512"])
)
def test_every_bit_is_pillows(case, form, level):
    pixels, box, options = case
    rgbx = np.concatenate([pixels, np.full_like(pixels[..., :1], 77)], axis=2)
    image = {
        "hwc": torch.from_numpy(pixels),
        "chw": torch.from_numpy(pixels).permute(2, 0, 1).contiguous().permute(1, 2, 0),
        "rgbx": torch.from_numpy(rgbx)[..., :3],
        "pil": Image.fromarray(pixels),
        "strided": torch.from_numpy(pixels.repeat(2, axis=1))[:, ::2],
    }[form]
    if isinstance(image, torch.Tensor) and image.shape[0] in (1, 3, 4):
        image = image.permute(2, 0, 1)  # say it: [3, W, 3] would be taken for planes
    want = plain(Image.fromarray(pixels), box, **options)
    with at_level(level):
        got = roi_clip_preprocess([image], [box], [0], **options)
    assert np.array_equal(got[0].numpy(), want)


@settings(max_examples=times(300), deadline=None)
@given(cases(), st.sampled_from(module.ORDERS))
def test_reference_in_every_order_of_passes(case, order):
    pixels, box, options = case
    want = reference.roi_clip_preprocess([pixels], [box], [0], order=order, **options)
    got = roi_clip_preprocess([torch.from_numpy(pixels).permute(2, 0, 1)], [box], [0], order=order, **options)
    assert np.array_equal(got.numpy(), want)
    with at_level("scalar"):
        again = roi_clip_preprocess([torch.from_numpy(pixels).permute(2, 0, 1)], [box], [0], order=order, **options)
    assert torch.equal(got, again)


@pytest.mark.parametrize(
    ("version", "order"),
    [
        ("10.4.0", "horizontal"),
        ("12.2.0", "horizontal"),
        ("12.3.0", "pillow-12.3"),
        ("13.0.0", "pillow-13"),
        ("14.1.0.dev0", "pillow-13"),
    ],
)
def test_order_of_pillow(version, order):
    assert module.order_of_pillow(version) == order


def test_orders_differ_on_a_tall_image():
    image = torch.from_numpy(noise(300, 60))
    results = [roi_clip_preprocess([image], None, size=32, order=order) for order in ("horizontal", "pillow-13")]
    assert not torch.equal(*results)


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (333, 501), (224, 224), (100, 90), (37, 224)])
def test_transformers_processor(size):
    clip = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    processor = clip.CLIPImageProcessorPil()
    images = [Image.fromarray(noise(*size, seed=seed)) for seed in range(2)]
    want = processor(images, return_tensors="pt")["pixel_values"]
    assert torch.equal(roi_clip_preprocess(images, None), want)
    boxes = [(10, 5, 30, 36), (2, 1, 37, 29)]
    want = processor([image.crop(box) for image, box in zip(images, boxes, strict=True)], return_tensors="pt")
    assert torch.equal(roi_clip_preprocess(images, boxes), want["pixel_values"])


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA", "I;16", "I", "F", "CMYK", "YCbCr", "HSV", "PA"])
def test_every_mode_as_the_processor_converts_it(mode):
    clip = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    image = Image.fromarray(noise(50, 70)).convert("L" if mode in ("I;16", "LA", "PA") else "RGB")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 200)
    elif mode in ("PA", "RGBA"):
        image = image.convert("RGBA" if mode == "RGBA" else "LA").convert(mode)
        image.putalpha(Image.fromarray(noise(50, 70, seed=3)[..., 0]))
    else:
        image = image.convert(mode)
    want = clip.CLIPImageProcessorPil()(image, return_tensors="pt")["pixel_values"]
    assert torch.equal(roi_clip_preprocess([image], None), want)


def test_palette_with_transparency():
    clip = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    image = Image.fromarray(noise(40, 40)).convert("P")
    image.info["transparency"] = 3
    want = clip.CLIPImageProcessorPil()(image, return_tensors="pt")["pixel_values"]
    assert torch.equal(roi_clip_preprocess([image], None), want)


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 1), (1, 40, 50), (40, 50, 4), (4, 40, 50)])
def test_grey_and_alpha_arrays_as_the_processor_converts_them(shape):
    clip = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    # transformers' own conversion takes no 2-dimensional array
    want = clip.CLIPImageProcessorPil()(array if len(shape) == 3 else array[None], return_tensors="pt")["pixel_values"]
    assert torch.equal(roi_clip_preprocess([array], None), want)
    assert torch.equal(roi_clip_preprocess([torch.from_numpy(array)], None), want)


@pytest.mark.parametrize("resize", module.RESIZES)
@pytest.mark.parametrize("interpolation", module.INTERPOLATIONS)
@pytest.mark.parametrize("size", [(480, 641), (123, 50), (90, 91)])
def test_open_clip_transform(resize, interpolation, size):
    open_clip = pytest.importorskip("open_clip")
    transform = open_clip.image_transform(64, is_train=False, resize_mode=resize, interpolation=interpolation)
    image = Image.fromarray(noise(*size))
    got = roi_clip_preprocess([image], None, size=64, resize=resize, interpolation=interpolation, center="round")
    assert torch.equal(got[0], transform(image))


@pytest.mark.parametrize("dtype", module.DTYPES)
@pytest.mark.parametrize("level", ["scalar", "avx2", "avx512"])
@pytest.mark.parametrize("std", [(0.27, 0.26, 0.28), (1e-3, 1e-6, -0.5)])
def test_dtypes_round_from_float32(dtype, level, std):
    image, mean = torch.from_numpy(noise(61, 47)), (0.5, 0.1, 0.9)
    want = torch.from_numpy(reference.roi_clip_preprocess([image.numpy()], [None], [0], size=51, mean=mean, std=std))
    out = torch.full((1, 3, 51, 51), float("nan"), dtype=dtype)
    with at_level(level):
        got = roi_clip_preprocess([image], None, size=51, mean=mean, std=std, dtype=dtype, out=out)
    assert got is out
    assert torch.equal(out, want.to(dtype))


def test_a_division_that_no_multiplication_replaces():
    # Among random numbers, some where a quotient of a byte lies too near to a tie for 48 bits of 1 / std.
    rng = np.random.default_rng(5)
    ramp = torch.arange(256, dtype=torch.uint8).reshape(16, 16, 1).expand(-1, -1, 3)
    for mean, std in rng.uniform(0.01, 1, (200, 2)).tolist():
        got = roi_clip_preprocess([ramp], None, size=16, mean=(mean,) * 3, std=(std,) * 3)
        scaled = (ramp.numpy().astype(np.float64) * (1 / 255)).astype(np.float32)
        want = (scaled - np.float32(mean)) / np.float32(std)
        assert np.array_equal(got[0].permute(1, 2, 0).numpy(), want)


@pytest.mark.parametrize("resize", module.RESIZES)
def test_every_element_is_written(resize):
    images = [torch.from_numpy(noise(*size)) for size in [(5, 200), (200, 5), (1, 1), (64, 64)]]
    boxes = [None, (0, 10, 5, 190), (-9, -9, -1, -1), (60, 60, 90, 63)]
    for size in (1, 31, 224):
        with poisoned_memory():
            assert torch.empty(1).isnan().all()
            got = roi_clip_preprocess(images, boxes, size=size, resize=resize)
        assert not got.isnan().any()


def test_outside_of_the_image_is_black():
    got = roi_clip_preprocess([torch.full((9, 9, 3), 200, dtype=torch.uint8)], [(20, 20, 30, 30)], size=8)
    want = roi_clip_preprocess([torch.zeros(9, 9, 3, dtype=torch.uint8)], None, size=8)
    assert torch.equal(got, want)


@pytest.mark.parametrize("size", [(1, 10000), (10000, 1), (6000, 8000)])
def test_extreme_images(size):
    pixels = np.resize(noise(97, 101).reshape(-1), (*size, 3))
    image = Image.fromarray(pixels)
    boxes = [None, (0, 0, 1, 1), (size[1] - 1, size[0] - 1, size[1], size[0])]
    options = {"size": 224, "resize": "shortest", "interpolation": "bicubic", "center": "floor"}
    if size[0] * size[1] > 10**6:
        boxes.append((37, 41, 7000, 5800))
    got = roi_clip_preprocess([image], boxes, [0] * len(boxes))
    again = roi_clip_preprocess([torch.from_numpy(pixels).permute(2, 0, 1)], boxes, [0] * len(boxes))
    assert torch.equal(got, again)
    for i, box in enumerate(boxes):
        if size == (6000, 8000) or box is not None:  # Pillow would make 224 x 2,240,000 pixels of the others
            assert np.array_equal(got[i].numpy(), plain(image, box, **options))


def test_mixed_batch_is_the_same_for_every_number_of_threads():
    images = [torch.from_numpy(noise(60 + i, 90 - i, seed=i)) for i in range(7)]
    index = [i % 7 for i in range(23)]
    boxes = [None if i % 3 == 0 else (i - 5, i, i + 40, i + 31) for i in range(23)]
    alone = [roi_clip_preprocess([images[n]], [box], [0], size=65)[0] for n, box in zip(index, boxes, strict=True)]
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            assert torch.equal(roi_clip_preprocess(images, boxes, index, size=65), torch.stack(alone))
            assert torch.equal(roi_clip_preprocess(images, boxes, index, size=65)[:1], torch.stack(alone)[:1])
    finally:
        torch.set_num_threads(threads)


def test_boxes_as_lists_tensors_and_fractions():
    image = torch.from_numpy(noise(50, 60))
    want = roi_clip_preprocess([image], [(2, 4, 20, 30), None], [0, 0], size=20)
    whole = module.WHOLE_IMAGE
    table = torch.tensor([[2, 4, 20, 30], [whole] * 4])
    assert torch.equal(roi_clip_preprocess([image], table, torch.zeros(2, dtype=torch.int32), size=20), want)
    halves = torch.tensor([[2.5, 3.5, 19.5, 30.49]])  # rounded half to even, as Pillow does
    assert torch.equal(roi_clip_preprocess([image], halves, [0], size=20), want[:1])
    assert torch.equal(roi_clip_preprocess([image], halves.numpy(), [0], size=20), want[:1])
    assert torch.equal(roi_clip_preprocess([image], halves.tolist(), [0], size=20), want[:1])
    assert roi_clip_preprocess([image], [], [], size=20).shape == (0, 3, 20, 20)


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
        (torch.zeros(5, 5, 2, dtype=torch.uint8), r"images\[1\] must be \[H, W\]"),
        (torch.zeros(1, 4, 4, 3, dtype=torch.uint8), r"images\[1\] must be \[H, W\]"),
        (np.zeros((0, 4, 3), np.uint8), r"images\[1\] has no pixel"),
        (Image.new("RGB", (0, 4)), r"images\[1\] has no pixel"),
    ],
)
def test_bad_images(image, message):
    with pytest.raises(ValueError, match=message):
        roi_clip_preprocess([torch.zeros(4, 4, 3, dtype=torch.uint8), image], None)


def test_no_images():
    with pytest.raises(ValueError, match="images is empty"):
        roi_clip_preprocess([], None)


def test_read_only_and_reversed_arrays():
    array = noise(30, 40)
    want = roi_clip_preprocess([array], None, size=16)
    frozen = array.copy()
    frozen.flags.writeable = False
    assert torch.equal(roi_clip_preprocess([frozen], None, size=16), want)
    assert torch.equal(roi_clip_preprocess([np.ascontiguousarray(array[::-1])[::-1]], None, size=16), want)


def test_nothing_is_read_behind_the_last_pixel():
    # The view ends with the third byte of its last pixel; the page behind may not exist.
    flat = torch.from_numpy(noise(1, 20 * 31, 4).reshape(-1))
    view = flat[:-1].as_strided((20, 31, 3), (31 * 4, 4, 1))
    want = roi_clip_preprocess([view.contiguous()], None, size=16)
    assert torch.equal(roi_clip_preprocess([view], None, size=16), want)


def test_pillow_lends_its_memory():
    images = importlib.import_module("dpad_fast.ops._images")
    image = Image.fromarray(noise(30, 40))
    pixels = images.as_pixels(image, "image")
    image.putpixel((5, 7), (1, 2, 3))
    assert pixels.shape == (30, 40, 3)
    assert pixels.stride() == (160, 4, 1)
    assert pixels[7, 5].tolist() == [1, 2, 3]  # the same memory
    del image
    assert pixels[7, 5].tolist() == [1, 2, 3]  # kept alive by the loan


def test_without_the_loan_the_result_is_the_same(monkeypatch):
    images = importlib.import_module("dpad_fast.ops._images")
    image = Image.fromarray(noise(60, 80))
    want = roi_clip_preprocess([image], None, size=32)
    monkeypatch.setattr(images, "_lent", lambda image: None)
    assert torch.equal(roi_clip_preprocess([image], None, size=32), want)


SAMPLE = ([torch.from_numpy(noise(20, 30)), torch.from_numpy(noise(3, 12, 10)).permute(1, 2, 0)[..., :3].contiguous()],)
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
    images = [torch.from_numpy(noise(20, 30)), torch.from_numpy(noise(40, 13))]
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
        images = [torch.from_numpy(noise(60, 80, seed=i + j)) for j in range(4)]
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
    images = [noise(20, 31), noise(9, 14)]
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


def test_images_go_to_a_device_as_they_lie():
    """Where nothing can be computed, shapes, strides and how much goes up can still be looked at."""
    from dpad_fast.ops._images import as_pixels, uploaded

    there = torch.device("meta")
    picture = Image.fromarray(noise(20, 31))
    wide = torch.from_numpy(noise(40, 500))
    for image, span in (
        (torch.from_numpy(noise(20, 31)), 20 * 31 * 3),
        (torch.from_numpy(noise(20, 31)).permute(2, 0, 1), 20 * 31 * 3),
        (torch.from_numpy(noise(20, 31)[..., 0]), 20 * 31),
        (wide[10:30, 100:131], 20 * 31 * 3),
        (picture, 20 * 31 * 4 - 1 if hasattr(picture, "__arrow_c_array__") else 20 * 31 * 3),
    ):
        pixels = as_pixels(image, "image")
        up = uploaded(pixels, there, "image")
        assert up.shape == pixels.shape == (20, 31, 3)
        assert up.untyped_storage().nbytes() == span
        assert uploaded(pixels, torch.device("cpu"), "image") is pixels
    with pytest.raises(ValueError, match=r"images\[1\] is on meta, expected cuda:0 or the host"):
        uploaded(up, torch.device("cuda:0"), "images[1]")
    images = [noise(20, 31), noise(9, 14)]
    assert torch.equal(
        roi_clip_preprocess(images, None, size=8, device="cpu"), roi_clip_preprocess(images, None, size=8)
    )


def test_uploaded_bytes_are_the_images(monkeypatch):
    """The staging copy, with the host in the place of a GPU."""
    from dpad_fast.ops import _images

    class Elsewhere:
        type, index = "elsewhere", None

    sent = []
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device, **options: sent.append(device) or self)
    for image in (
        noise(20, 31),
        noise(20, 31, channels=4)[..., :3],
        noise(40, 500)[10:30, 100:131],
        noise(9, 7)[..., :1],
    ):
        pixels = torch.from_numpy(image).expand(-1, -1, 3)
        assert torch.equal(_images.uploaded(pixels, Elsewhere(), "image"), pixels)
    assert len(sent) == 4
