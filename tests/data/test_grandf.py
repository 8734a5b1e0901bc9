"""GranD-f's three kinds of file: phrases as queries, their masks united, and what is refused."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dpad_fast import coco_mask
from dpad_fast.data import grandf
from dpad_fast.data.coco_writing import rle_of
from dpad_fast.testing.data_forms import picture, target_of, told
from dpad_fast.types import Sample, Target

W, H = 20, 12


def block(x1, y1, x2, y2):
    mask = np.zeros((H, W), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def saved(folder, content, name="a.jpg"):
    picture(folder / "images" / name, W, H)
    file = folder / "x.json"
    file.write_text(json.dumps(content))
    return file


def psg(**fields):
    groundings = {
        "a man": {"token_positives": [0, 5], "rle_masks": [rle_of(block(1, 1, 4, 5)), rle_of(block(6, 2, 9, 7))]},
        "two dogs": {"token_positives": [9, 17], "rle_masks": [rle_of(block(12, 3, 15, 6))]},
    }
    return {"file_name": "a.jpg", "caption": "a man and two dogs", "groundings": groundings, **fields}


def test_open_psg(tmp_path):
    man, dogs = grandf.load(saved(tmp_path, [psg()]))
    assert [(s.id, s.query) for s in (man, dogs)] == [("0-0", "a man"), ("0-1", "two dogs")]
    assert man.target.mask.tolist() == (block(1, 1, 4, 5) | block(6, 2, 9, 7)).tolist()
    assert (man.target.box, man.target.other_boxes) == ((1, 1, 9, 7), ((12, 3, 15, 6),))
    assert dogs.target.other_boxes == ((1, 1, 9, 7),)


def test_refcocog(tmp_path):
    rings = [[1, 1, 8, 1, 8, 6, 1, 6], [10, 2, 15, 2, 15, 9]]
    refs = [{"sentence": "the cup", "segmentation": rings}, {"sentence": "it", "segmentation": rings[:1]}]
    cup, it = grandf.load(saved(tmp_path, [{"77": {"img_file_name": "a.jpg", "caption": "the cup", "refs": refs}}]))
    assert [cup.id, it.id, cup.query] == ["77-0", "77-1", "the cup"]
    drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(rings, H, W))) != 0
    assert cup.target.mask.tolist() == drawn.tolist()


def test_flickr(tmp_path):
    annotations = [
        {
            "id": 1,
            "image_id": 5,
            "bbox": [1, 1, 3, 4],
            "tokens_positive": [[0, 5]],
            "sam_mask": rle_of(block(1, 1, 4, 5)),
        },
        {
            "id": 2,
            "image_id": 5,
            "bbox": [6, 2, 3, 5],
            "tokens_positive": [[0, 5]],
            "sam_mask": rle_of(block(6, 2, 9, 7)),
        },
        {
            "id": 3,
            "image_id": 5,
            "bbox": [9, 9, 1, 1],
            "tokens_positive": [[6, 9]],
            "sam_mask": rle_of(block(9, 9, 12, 12)),
        },
        {"id": 4, "image_id": 5, "bbox": [9, 9, 1, 1], "ignore": 1},
    ]
    content = {"images": [{"id": 5, "file_name": "a.jpg", "caption": "a man and"}], "annotations": annotations}
    man, other = grandf.load(saved(tmp_path, content))
    assert [(s.id, s.query) for s in (man, other)] == [("5-0", "a man"), ("5-1", "and")]
    assert man.target.box == (1, 1, 9, 7)
    annotations[0]["tokens_positive"] = [[3, 99]]
    with pytest.raises(ValueError, match=r"annotations\[0\] \(id 1\): tokens_positive must be"):
        list(grandf.load(saved(tmp_path, content)))


def test_a_picture_by_its_number(tmp_path):
    row = psg(img_id=7)
    del row["file_name"]
    assert len(list(grandf.load(saved(tmp_path, [row], "COCO_train2014_000000000007.jpg")))) == 2


@pytest.mark.parametrize(
    ("change", "message", "left"),
    [
        ({"file_name": "gone.jpg"}, "picture 'gone.jpg' is not in", 0),
        ({"file_name": 5}, "file_name must be the name of a picture", 0),
        ({"groundings": []}, "needs groundings (an object) or refs (a list)", 0),
        ({"groundings": {"a": {"rle_masks": []}, "b": psg()["groundings"]["a man"]}}, "groundings['a']: no mask", 1),
        (
            {"groundings": {"a": {"rle_masks": [{"size": [5, 5], "counts": "0"}]}}},
            "groundings['a']: mask 0: size is",
            0,
        ),
        ({"groundings": {" ": {"rle_masks": [rle_of(block(1, 1, 2, 2))]}}}, "the phrase must be text", 0),
    ],
)
def test_a_bad_row_is_named_and_left_out(change, message, left, tmp_path):
    file = saved(tmp_path, [psg(), psg(**change)])
    with pytest.raises(ValueError, match="row 1") as caught:
        list(grandf.load(file))
    assert str(caught.value).startswith(f"{file}: row 1")
    assert message in str(caught.value)
    said = []
    assert len(list(grandf.load(file, on_error=said.append))) == 2 + left
    assert said == [str(caught.value)]


def test_files_that_are_none_are_named(tmp_path):
    with pytest.raises(ValueError, match="found none"):
        grandf.load(tmp_path)
    with pytest.raises(ValueError, match="no file or folder"):
        grandf.load(tmp_path / "gone.json")
    with pytest.raises(ValueError, match="expected a list of captions"):
        list(grandf.load(saved(tmp_path, "text")))


@given(masks=st.lists(arrays(np.bool_, (H, W)).filter(np.any), min_size=1, max_size=3))
@settings(deadline=None, max_examples=20)
def test_what_was_written_is_read_again(tmp_path_factory, masks):
    folder = tmp_path_factory.mktemp("grandf")
    image = str(picture(folder / "from" / "a.png", W, H))
    targets = [target_of(mask, other_boxes=[(1, 2, 3.25, 4)] * i) for i, mask in enumerate(masks)]
    samples = [Sample(f"id {i}", image, f"phrase {i // 2}", target) for i, target in enumerate(targets)]
    assert list(map(told, grandf.load(grandf.write(samples, folder / "x.json")))) == list(map(told, samples))


def test_what_has_no_mask_cannot_be_written(tmp_path):
    image = picture(tmp_path / "a.png", W, H)
    with pytest.raises(ValueError, match="sample 's': its target needs a mask"):
        grandf.write([Sample("s", image, "q", Target(box=(1, 2, 3, 4)))], tmp_path / "x.json")
