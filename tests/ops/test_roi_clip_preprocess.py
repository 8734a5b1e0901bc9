"""roi_clip_preprocess against Pillow, transformers, open_clip and the plain reference."""

import importlib
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
from dpad_fast.testing import noisy_pixels, poisoned_memory

module = importlib.import_module("dpad_fast.ops.roi_clip_preprocess")
RESAMPLE = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


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
    return noisy_pixels(height, width, seed=draw(st.integers(0, 9))), draw(st.sampled_from([box, None])), options


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
    image = torch.from_numpy(noisy_pixels(300, 60))
    results = [roi_clip_preprocess([image], None, size=32, order=order) for order in ("horizontal", "pillow-13")]
    assert not torch.equal(*results)


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (333, 501), (224, 224), (100, 90), (37, 224)])
def test_transformers_processor(size):
    clip = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    processor = clip.CLIPImageProcessorPil()
    images = [Image.fromarray(noisy_pixels(*size, seed=seed)) for seed in range(2)]
    want = processor(images, return_tensors="pt")["pixel_values"]
    assert torch.equal(roi_clip_preprocess(images, None), want)
    boxes = [(10, 5, 30, 36), (2, 1, 37, 29)]
    want = processor([image.crop(box) for image, box in zip(images, boxes, strict=True)], return_tensors="pt")
    assert torch.equal(roi_clip_preprocess(images, boxes), want["pixel_values"])


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA", "I;16", "I", "F", "CMYK", "YCbCr", "HSV", "PA"])
def test_every_mode_as_the_processor_converts_it(mode):
    clip = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    image = Image.fromarray(noisy_pixels(50, 70)).convert("L" if mode in ("I;16", "LA", "PA") else "RGB")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 200)
    elif mode in ("PA", "RGBA"):
        image = image.convert("RGBA" if mode == "RGBA" else "LA").convert(mode)
        image.putalpha(Image.fromarray(noisy_pixels(50, 70, seed=3)[..., 0]))
    else:
        image = image.convert(mode)
    want = clip.CLIPImageProcessorPil()(image, return_tensors="pt")["pixel_values"]
    assert torch.equal(roi_clip_preprocess([image], None), want)


def test_palette_with_transparency():
    clip = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    image = Image.fromarray(noisy_pixels(40, 40)).convert("P")
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
    image = Image.fromarray(noisy_pixels(*size))
    got = roi_clip_preprocess([image], None, size=64, resize=resize, interpolation=interpolation, center="round")
    assert torch.equal(got[0], transform(image))


@pytest.mark.parametrize("dtype", module.DTYPES)
@pytest.mark.parametrize("level", ["scalar", "avx2", "avx512"])
@pytest.mark.parametrize("std", [(0.27, 0.26, 0.28), (1e-3, 1e-6, -0.5)])
def test_dtypes_round_from_float32(dtype, level, std):
    image, mean = torch.from_numpy(noisy_pixels(61, 47)), (0.5, 0.1, 0.9)
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
    images = [torch.from_numpy(noisy_pixels(*size)) for size in [(5, 200), (200, 5), (1, 1), (64, 64)]]
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
    pixels = np.resize(noisy_pixels(97, 101).reshape(-1), (*size, 3))
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
    images = [torch.from_numpy(noisy_pixels(60 + i, 90 - i, seed=i)) for i in range(7)]
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
