"""SAM 2 and SAM 3 as segmenters give what transformers gives when it is called directly, to the bit."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from dpad_fast.clip.cache import EmbeddingCache
from dpad_fast.segmenters import SamSegmenter, make_segmenter
from dpad_fast.testing.segmenters import small_sam2, small_sam3, write_small_sam2
from dpad_fast.types import Completion

SIZES = ((50, 40), (30, 70), (64, 64), (90, 31))
BOXES = ((3.0, 4.0, 30.0, 29.5), (1, 2, 25, 60), (10, 10, 50, 50), (0, 0, 89, 30))
POINTS = (((10.0, 12.0), (20, 22)), ((5, 6), (15, 40)), ((20, 20), (30, 30)), ((40, 9), (41, 10)))


def pictures():
    random = np.random.default_rng(5)
    return [Image.fromarray(random.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in SIZES]


def direct(parts, image, box=None, points=None, labels=None, size=None):
    """What transformers gives: one picture, one prompt, three masks, the one of the highest score."""
    model, processor = parts
    given = {"images": image, "return_tensors": "pt"}
    if box is not None:
        given["input_boxes"] = [[list(map(float, box))]]
    if points is not None:
        given["input_points"] = [[[list(map(float, point)) for point in points]]]
        given["input_labels"] = [[list(labels or (1,) * len(points))]]
    inputs = processor(**given)
    sizes = inputs.pop("original_sizes")
    with torch.inference_mode():
        output = model(**inputs, multimask_output=True)
    masks = processor.post_process_masks(output.pred_masks, sizes)[0]
    return masks[0, int(output.iou_scores[0, 0].argmax())].numpy()


@pytest.fixture(scope="module", params=[small_sam2, small_sam3], ids=["sam2", "sam3"])
def parts(request):
    return request.param()


def equal(found, expected):
    assert [mask.dtype for mask in found] == [np.bool_] * len(expected)
    return all(np.array_equal(mask, wanted) for mask, wanted in zip(found, expected, strict=True))


def test_box_and_two_points_of_pictures_of_mixed_sizes(parts):
    images = pictures()
    answers = [Completion("", box=box, points=points) for box, points in zip(BOXES, POINTS, strict=True)]
    expected = [direct(parts, *row) for row in zip(images, BOXES, POINTS, strict=True)]
    assert len({mask.tobytes() for mask in expected}) == len(expected)  # the small model tells prompts apart
    assert equal(SamSegmenter(*parts).segment(answers, images, SIZES), expected)


def test_each_kind_of_prompt_many_on_one_picture(parts):
    image = pictures()[2]
    asked = [
        {"box": BOXES[2]},
        {"points": POINTS[2]},
        {"points": POINTS[2], "labels": (1, 0)},
        {"box": BOXES[2], "points": POINTS[2], "labels": (0, 0)},
        {"points": (*POINTS[2], (50.0, 3.0)), "labels": (1, 1, 0)},
        {"box": (5.0, 5.0, 20.0, 20.0)},
    ]
    answers = [Completion("", **prompt) for prompt in asked]
    expected = [direct(parts, image, **prompt) for prompt in asked]
    assert not np.array_equal(expected[1], expected[2])  # a negative point counts
    found = SamSegmenter(*parts).segment(answers, [image] * len(asked), [image.size] * len(asked))
    assert equal(found, expected)


def test_several_objects_are_one_mask(parts):
    image = pictures()[2]
    objects = (((5.0, 5.0, 20.0, 20.0), (9.0, 9.0)), ((30.0, 30.0, 60.0, 60.0), (40.0, 50.0)), (None, (2.0, 60.0)))
    expected = np.zeros((64, 64), dtype=bool)
    for box, point in objects:
        expected |= direct(parts, image, box, [point])
    (found,) = SamSegmenter(*parts).segment([Completion("", objects=objects)], [image], [(64, 64)])
    assert np.array_equal(found, expected)


def test_cache_on_and_off_and_pictures_embedded_once(parts, monkeypatch):
    images = pictures()
    model = parts[0]
    embedded = []
    forward = model.get_image_embeddings
    monkeypatch.setattr(model, "get_image_embeddings", lambda pixels: embedded.append(len(pixels)) or forward(pixels))
    answers = [Completion("", box=box) for box in BOXES for _ in range(2)]
    shown, sizes = [i for i in images for _ in range(2)], [s for s in SIZES for _ in range(2)]
    copies = [image.copy() for image in shown]  # equal content in other objects
    kept, none = SamSegmenter(*parts), SamSegmenter(*parts, cache=EmbeddingCache(0))
    expected = kept.segment(answers, shown, sizes)
    assert sum(embedded) == 4
    assert equal(kept.segment(answers, copies, sizes), expected)
    assert sum(embedded) == 4
    assert equal(none.segment(answers, shown, sizes), expected)
    assert equal(none.segment(answers, shown, sizes), expected)
    assert sum(embedded) == 12  # a cache of no bytes keeps nothing beyond a call


def test_the_cache_is_bounded(parts):
    one = sum(part.numel() * 4 for part in parts[0].get_image_embeddings(torch.zeros(1, 3, 64, 64)))
    cache = EmbeddingCache(2 * one)
    segmenter = SamSegmenter(*parts, cache=cache)
    segmenter.segment([Completion("", box=box) for box in BOXES], pictures(), SIZES)
    assert (len(cache), cache.bytes) == (2, 2 * one)


def test_embeddings_on_disk_serve_another_process(parts, tmp_path, monkeypatch):
    answers, images = [Completion("", box=box) for box in BOXES], pictures()
    expected = SamSegmenter(*parts, cache=EmbeddingCache(folder=tmp_path)).segment(answers, images, SIZES)
    sizes = []
    forward = parts[0].get_image_embeddings
    monkeypatch.setattr(parts[0], "get_image_embeddings", lambda pixels: sizes.append(len(pixels)) or forward(pixels))
    assert equal(SamSegmenter(*parts, cache=EmbeddingCache(folder=tmp_path)).segment(answers, images, SIZES), expected)
    assert sizes == [1]  # one small picture, for the shapes


def test_batches_agree_but_for_the_last_bits(parts):
    answers = [Completion("", box=box, points=points) for box, points in zip(BOXES, POINTS, strict=True)] * 2
    images, sizes = pictures() * 2, SIZES * 2
    expected = SamSegmenter(*parts).segment(answers, images, sizes)
    found = SamSegmenter(*parts, batch=3).segment(answers, images, sizes)
    assert all((a != b).mean() < 0.01 for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_pictures_of_other_modes_and_as_files(parts, mode, tmp_path):
    image = pictures()[0].convert(mode)
    expected = direct(parts, image, BOXES[0])
    path = tmp_path / f"p.{'jpg' if mode == 'CMYK' else 'png'}"
    image.save(path)
    again = direct(parts, Image.open(path), BOXES[0])
    found = SamSegmenter(*parts).segment([Completion("", box=BOXES[0])] * 2, [image, path], [SIZES[0]] * 2)
    assert equal(found, [expected, again])


def test_a_camera_picture_is_turned_upright(parts, tmp_path):
    image = pictures()[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "p.png", exif=exif)
    turned = image.transpose(Image.Transpose.ROTATE_270)
    (found,) = SamSegmenter(*parts).segment([Completion("", box=(3, 4, 30, 29))], [tmp_path / "p.png"], [turned.size])
    assert np.array_equal(found, direct(parts, turned, (3, 4, 30, 29)))


def test_a_mask_of_another_size_than_the_picture(parts):
    """Box and mask at twice the size: the same square for the model, drawn finer."""
    image = pictures()[0]
    double = tuple(2 * side for side in SIZES[0])
    (found,) = SamSegmenter(*parts).segment([Completion("", box=[2 * v for v in BOXES[0]])], [image], [double])
    model, processor = parts
    inputs = processor(images=image, input_boxes=[[list(BOXES[0])]], return_tensors="pt")
    inputs.pop("original_sizes")
    with torch.inference_mode():
        output = model(**inputs)
    masks = processor.post_process_masks(output.pred_masks, [double[::-1]])[0]
    assert np.array_equal(found, masks[0, int(output.iou_scores.argmax())].numpy())


@pytest.mark.parametrize(
    "answer",
    [
        Completion(""),
        Completion("", box=("a", 1, 2, 3)),
        Completion("", box=(float("nan"), 1, 2, 3)),
        Completion("", points=((1.0, 2.0), (3.0, 4.0)), labels=(0, 0)),
        Completion("", points=((1.0, 2.0), (3.0, "x"))),
        Completion("", objects=()),
        Completion("", objects=((None, None),)),
    ],
)
def test_nothing_to_go_by_is_no_mask_and_no_picture_is_read(parts, answer):
    assert SamSegmenter(*parts).segment([answer], ["/nowhere.png"], [(9, 9)]) == [None]


def test_far_coordinates_are_no_crash(parts):
    answers = [Completion("", box=(-1e30, -1e30, 1e30, 1e30)), Completion("", box=(0, 0, 10**400, 5))]
    found = SamSegmenter(*parts).segment(answers, pictures()[:1] * 2, SIZES[:1] * 2)
    assert [mask.shape for mask in found] == [(40, 50)] * 2


@pytest.mark.parametrize("bad", ["/nowhere.png", 7, b"no picture"])
def test_a_bad_picture_is_named_by_its_row(parts, bad):
    images = [None, pictures()[0], bad]
    answers = [Completion(""), *[Completion("", box=BOXES[0])] * 2]
    with pytest.raises(ValueError, match=r"images\[2\]"):
        SamSegmenter(*parts).segment(answers, images, SIZES[:3])


def test_a_folder_by_name_dtype_and_pickle(tmp_path):
    folder = write_small_sam2(tmp_path / "sam", seed=3)
    segmenter = make_segmenter(f"sam2:{folder}")
    answers, images = [Completion("", box=box) for box in BOXES], pictures()
    expected = [direct(small_sam2(3), *row) for row in zip(images, BOXES, strict=True)]
    assert equal(segmenter.segment(answers, images, SIZES), expected)
    assert equal(pickle.loads(pickle.dumps(segmenter)).segment(answers, images, SIZES), expected)
    half = make_segmenter(f"sam2:{folder}", dtype="bfloat16")
    assert half.model.dtype == torch.bfloat16
    found = half.segment(answers, images, SIZES)
    assert np.mean([(a == b).mean() for a, b in zip(found, expected, strict=True)]) > 0.8
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(SamSegmenter(*small_sam2()))


def test_what_cannot_be_loaded_is_told(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ValueError, match="its model_type is 'clip'; known: sam2"):
        make_segmenter(f"sam2:{tmp_path}")
    with pytest.raises(ValueError, match=r"segmenter '/no/such' cannot be loaded: no such folder"):
        make_segmenter("sam2:/no/such")
    with pytest.raises(ValueError, match="dtype must be one of float32"):
        make_segmenter(f"sam2:{tmp_path}", dtype="int8")
    with pytest.raises(ValueError, match="device 'tpu9' is none"):
        make_segmenter(f"sam2:{tmp_path}", device="tpu9")
    with pytest.raises(ValueError, match="batch must be a whole number of at least 1, or None, got 0"):
        SamSegmenter(*small_sam2(), batch=0)
