"""Preprocess under open_clip's rule: colour modes by open_clip's own transform, RGB and grey by the op, bit for bit."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import dpad_fast as df
from dpad_fast.clip.images import MaskedPicture, find_pictures
from dpad_fast.clip.preprocess import Preprocess
from dpad_fast.testing import noisy_pixels
from dpad_fast.testing import rewards as shared

open_clip = pytest.importorskip("open_clip")
SIZE = (61, 47)
BOXES = [None, (5, 4, 40, 33), (-6, 10, 30, 60)]


def of_mode(mode):
    rng = np.random.default_rng(3)
    if mode in ("RGB+tRNS", "L+tRNS", "P+tRNS"):
        image = of_mode(mode.split("+")[0])
        image.info["transparency"] = {"R": (7, 8, 9), "L": 7, "P": 3}[mode[0]]
        return image
    noise = Image.fromarray(noisy_pixels(SIZE[1], SIZE[0], 4))
    if mode in ("RGBA", "RGBX", "CMYK"):
        return Image.frombytes(mode, SIZE, noise.tobytes())
    if mode in ("HSV", "YCbCr", "LAB"):
        return Image.frombytes(mode, SIZE, noisy_pixels(SIZE[1], SIZE[0]).tobytes())
    if mode == "LA":
        return Image.frombytes(mode, SIZE, rng.integers(0, 256, SIZE[0] * SIZE[1] * 2, np.uint8).tobytes())
    if mode == "PA":
        return noise.convert("RGB").quantize(50).convert("PA")
    if mode in ("I", "F", "I;16"):
        kind = {"I": np.int32, "F": np.float32, "I;16": np.uint16}[mode]
        return Image.fromarray(rng.integers(0, 256, SIZE[::-1]).astype(kind))
    if mode == "RGBa":
        return noise.convert("RGBa")
    return noise.convert("RGB").quantize(50) if mode == "P" else noise.convert("RGB").convert(mode)


MODES = ["RGB", "L", "1", "P", "RGBA", "LA", "PA", "HSV", "YCbCr", "LAB", "CMYK", "RGBX", "RGBa", "I", "F", "I;16"]
MODES += ["RGB+tRNS", "L+tRNS", "P+tRNS"]


@pytest.mark.parametrize("resize", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_open_clips_to_the_bit(mode, resize):
    transform = open_clip.image_transform(32, is_train=False, resize_mode=resize)
    image = of_mode(mode)
    assert image.mode == mode.split("+")[0]
    preprocess = Preprocess.from_open_clip(transform)
    read = preprocess.read(find_pictures([image], None)[0][0])
    want = torch.stack([transform(image if box is None else image.crop(box)) for box in BOXES])
    assert torch.equal(preprocess([read], BOXES, [0] * 3), want)
    assert torch.equal(preprocess([image], BOXES, [0] * 3), want)  # as it is, too


def test_a_batch_of_several_modes_keeps_its_order():
    transform = open_clip.image_transform(32, is_train=False)
    preprocess = Preprocess.from_open_clip(transform)
    images = [of_mode("RGBA"), of_mode("RGB"), of_mode("P"), of_mode("L")]
    numbers, boxes = [3, 0, 1, 2, 0, 3, 1], [None, (5, 4, 40, 33), None, None, None, (1, 2, 30, 40), (2, 3, 20, 30)]
    read = [preprocess.read(picture) for picture in find_pictures(images, None)[0]]
    assert [isinstance(image, Image.Image) for image in read] == [True, False, True, False]
    want = [transform(images[n] if box is None else images[n].crop(box)) for n, box in zip(numbers, boxes, strict=True)]
    assert torch.equal(preprocess(read, boxes, numbers), torch.stack(want))


def test_files_and_arrays_follow_the_same_rule(tmp_path):
    transform = open_clip.image_transform(32, is_train=False)
    preprocess = Preprocess.from_open_clip(transform)
    image, exif = of_mode("RGBA"), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    turned = transform(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    array = np.asarray(image)
    ways = {
        "path": (str(tmp_path / "a.png"), turned),
        "bytes": ((tmp_path / "a.png").read_bytes(), turned),
        "array": (array, transform(image)),
        "planar tensor": (torch.from_numpy(array.copy()).permute(2, 0, 1), transform(image)),
    }
    for name, (given, want) in ways.items():
        read = preprocess.read(find_pictures([given], None)[0][0])
        assert torch.equal(preprocess([read], [None], [0])[0], want), name


@pytest.mark.parametrize("size", [(50, 1), (50, 3), (50, 4), (3, 50), (3, 3), (4, 4), (1, 1)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_rows_are_not_taken_for_channels(parts, size, mode):
    """A picture of 1, 3 or 4 rows is [H, W, 3] that looks like [C, H, W]."""
    clip = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    image = shared.picture(1, size).convert(mode)
    box = (0, 0, max(size[0] - 1, 1), max(size[1] - 1, 1))
    processor, transform = clip.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32), parts[1]
    peers = [
        (
            Preprocess.from_transformers(processor),
            lambda shown: processor(shown, return_tensors="pt")["pixel_values"][0],
        ),
        (Preprocess.from_open_clip(transform), transform),
    ]
    for preprocess, peer in peers:
        want = torch.stack([peer(image.convert("RGB")), peer(image.convert("RGB").crop(box))])
        for given in (image, np.asarray(image.convert("RGB")).transpose(2, 0, 1)):
            (picture,), _ = find_pictures([given], None)
            assert picture.size == size
            read = [preprocess.read(picture), preprocess.read(MaskedPicture(picture, torch.ones(size[::-1]) > 0, "a"))]
            got = preprocess(read, [None, box, None, box], [0, 0, 1, 1])
            torch.testing.assert_close(got, torch.cat([want, want]), atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(0)
    model = open_clip.CLIP(
        embed_dim=16,
        vision_cfg={"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
        text_cfg={"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    ).eval()
    return model, open_clip.image_transform(32, is_train=False), open_clip.tokenizer.SimpleTokenizer()


def test_pictures_that_only_look_alike_over_white_are_told_apart(parts):
    """Embeddings are kept by content: what alpha or a palette hides must be in the key."""
    model, transform, _ = parts
    encoder = df.ClipEncoder.from_open_clip(*parts)
    clear = [np.zeros((40, 50, 4), np.uint8), np.full((40, 50, 4), 90, np.uint8)]  # both are white over white
    clear[1][..., 3] = 0
    palette = of_mode("P")
    other = palette.copy()
    other.putpalette(bytes(reversed(palette.getpalette())))
    images = [*(Image.fromarray(array) for array in clear), palette, other, palette.convert("RGB"), of_mode("P+tRNS")]
    for _ in range(2):  # computed, then from the cache
        found = encoder.embed_regions(find_pictures(images, None)[0], [(i, None) for i in range(len(images))])
        with torch.no_grad():
            want = torch.nn.functional.normalize(
                model.encode_image(torch.stack([transform(i) for i in images])), dim=-1
            )
        torch.testing.assert_close(found, want, atol=1e-6, rtol=0)
    assert len({repr(picture.key) for picture in find_pictures(images, None)[0]}) == len(images)


def test_a_blanked_picture_loses_its_alpha_first():
    transform = open_clip.image_transform(32, is_train=False)
    preprocess = Preprocess.from_open_clip(transform)
    keep = torch.ones(SIZE[::-1], dtype=torch.bool)
    keep[5:20, 7:30] = False
    for mode in ("RGBA", "P+tRNS", "RGB+tRNS"):
        image = of_mode(mode)
        read = preprocess.read(MaskedPicture(find_pictures([image], None)[0][0], keep, "a"))
        want = np.array(image.convert("RGB"))
        want[~keep.numpy()] = 0
        assert torch.equal(preprocess([read], [None], [0])[0], transform(Image.fromarray(want)))


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA"])
def test_a_scorer_takes_them(parts, mode):
    encoder = df.ClipEncoder.from_open_clip(*parts)
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad", shape="margin"), encoder)
    image = shared.picture().convert("RGB")
    image = image.quantize(40) if mode == "P" else image.convert(mode)
    batch = scorer.score([shared.completion()] * 2, [df.Target.parse(shared.SOLUTION)] * 2, [image, shared.picture()])
    assert torch.isfinite(batch.similarity["roi"]).all()


def test_transformers_rule_stays_alpha_over_white():
    clip = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    processor = clip.CLIPImageProcessorPil()
    preprocess = Preprocess.from_transformers(processor)
    for mode in ("RGBA", "LA", "P+tRNS", "HSV"):
        image = of_mode(mode)
        read = preprocess.read(find_pictures([image], None)[0][0])
        assert torch.equal(preprocess([read], [None], [0]), processor(image, return_tensors="pt")["pixel_values"])


def test_a_padding_colour_is_refused_by_name():
    transform = open_clip.image_transform(32, is_train=False, resize_mode="longest", fill_color=127)
    with pytest.raises(ValueError, match="preprocess pads with the colour 127; 0 is supported"):
        Preprocess.from_open_clip(transform)
