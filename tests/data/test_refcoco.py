"""RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO in COCO form: what is read, written, refused and named."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dpad_fast._mask_geometry import inscribed_points
from dpad_fast.data import refcoco
from dpad_fast.testing.data_forms import picture, target_of, told
from dpad_fast.types import Sample, Target

W, H = 20, 12
NAME = "COCO_train2014_000000000007.jpg"
RINGS = {1: [2.0, 1.0, 9.0, 1.0, 9.0, 6.0, 2.0, 6.0], 2: [12.0, 2.0, 18.0, 2.0, 18.0, 9.0, 12.0, 9.0]}
BOXES = {1: [2, 1, 7, 5], 2: [12, 2, 6, 7]}


def ref(number, ann_id, split="train", **fields):
    sents = [{"sent_id": 10 * number + i, "sent": f"words {number} {i}", "raw": "", "tokens": []} for i in range(2)]
    return {"ref_id": number, "ann_id": ann_id, "image_id": 7, "split": split, "sentences": sents, **fields}


def laid_out(root, refs, name="refs(unc).p", protocol=2):
    """As lichengunc/refer lays it out: DATA/refcoco/ and DATA/images/mscoco/images/train2014/."""
    picture(root / "images/mscoco/images/train2014" / NAME, W, H)
    folder = root / "refcoco"
    folder.mkdir(exist_ok=True)
    annotations = [{"id": i, "image_id": 7, "bbox": BOXES[i], "segmentation": [RINGS[i]]} for i in RINGS]
    content = {"images": [{"id": 7, "file_name": NAME, "width": W, "height": H}], "annotations": annotations}
    (folder / "instances.json").write_text(json.dumps(content))
    (folder / name).write_bytes(pickle.dumps(refs, protocol) if name.endswith(".p") else json.dumps(refs).encode())
    return folder


@pytest.mark.parametrize(("name", "protocol"), [("refs(unc).p", 0), ("refs(umd).p", 2), ("refs(google).json", 0)])
def test_a_sample_for_every_sentence(name, protocol, tmp_path):
    samples = list(refcoco.load(laid_out(tmp_path, [ref(3, 1), ref(4, 2, "val")], name, protocol)))
    assert [(s.id, s.query) for s in samples[:3]] == [
        ("3-30", "words 3 0"),
        ("3-31", "words 3 1"),
        ("4-40", "words 4 0"),
    ]
    target = samples[0].target
    assert (target.box, target.other_boxes) == ((2, 1, 9, 6), ((12, 2, 18, 9),))
    assert target.mask.sum() == 35
    assert target.points == inscribed_points(target.mask)
    assert target.objects == ()
    assert samples[0].image.endswith(NAME)


def test_splits(tmp_path):
    splits = ("train", "val", "testA", "testB")
    folder = laid_out(tmp_path, [ref(i, 1, split) for i, split in enumerate(splits)])
    for i, split in enumerate(splits):
        assert [s.id for s in refcoco.load(folder, split=split)] == [f"{i}-{10 * i}", f"{i}-{10 * i + 1}"]
    assert len(list(refcoco.load(folder, split="test"))) == 4
    with pytest.raises(ValueError, match="no ref of 'testC', only of testA, testB, train, val"):
        list(refcoco.load(folder, split="testC"))


def test_several_targets_and_none(tmp_path):
    refs = [ref(1, [1, 2]), ref(2, [-1]), ref(3, []), ref(4, -1), ref(5, [2])]
    samples = list(refcoco.load(laid_out(tmp_path, refs, "grefs(unc).json")))[::2]
    both, *nothing, one = (s.target for s in samples)
    assert both.box == (2, 1, 18, 9)
    assert both.mask.sum() == 35 + 42
    assert [box for box, _ in both.objects] == [(2, 1, 9, 6), (12, 2, 18, 9)]
    assert both.other_boxes == ()
    for target in nothing:
        assert (target.box, target.points, target.objects) == (None, None, ())
        assert target.mask.shape == (H, W)
        assert not target.mask.any()
        assert len(target.other_boxes) == 2
    assert [box for box, _ in one.objects] == [(12, 2, 18, 9)]


BAD = {
    "must be an object, got 5": 5,
    "ref_id must be a whole number or a string, got None": ref(9, 1) | {"ref_id": None},
    "image_id 8 is none of the images of": ref(9, 1, image_id=8),
    "ann_id 77 is none of the annotations of": ref(9, 77),
    "ann_id None is none of the annotations of": ref(9, None),
    "sentences must be a list with at least one, got []": ref(9, 1, sentences=[]),
    "sentences[0].sent must be text, got 5": ref(9, 1, sentences=[{"sent_id": 1, "sent": 5}]),
    "sentences[0].sent must be text, got None": ref(9, 1, sentences=["words"]),
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_ref_is_named_and_can_be_left_out(message, tmp_path):
    folder = laid_out(tmp_path, [ref(1, 1), BAD[message], ref(2, 2)])
    with pytest.raises(ValueError, match="ref 1") as caught:
        list(refcoco.load(folder))
    assert str(caught.value).startswith(f"{folder / 'refs(unc).p'}: ref 1")
    assert message in str(caught.value)
    said = []
    assert [s.id for s in refcoco.load(folder, on_error=said.append)] == ["1-10", "1-11", "2-20", "2-21"]
    assert said == [str(caught.value)]


def test_hostile_refs_are_refused(tmp_path):
    folder = laid_out(tmp_path, [])
    (folder / "refs(unc).p").write_bytes(b"cos\nsystem\n(S'echo'\ntR.")
    with pytest.raises(ValueError, match=r"GLOBAL asks for 'os\.system'"):
        list(refcoco.load(folder))
    shared = [ref(1, 1)["sentences"][0]] * 3000  # one list, meant by every ref
    (folder / "refs(unc).p").write_bytes(pickle.dumps([{"sentences": shared} for _ in range(3000)], 2))
    with pytest.raises(ValueError, match="more sentences than bytes"):
        list(refcoco.load(folder))


def test_folders_that_are_none_are_named(tmp_path):
    with pytest.raises(ValueError, match="path: no file"):
        refcoco.load(tmp_path / "gone")
    with pytest.raises(ValueError, match="found none"):
        refcoco.load(tmp_path)
    folder = laid_out(tmp_path, [ref(1, 1)])
    (folder / "refs(google).p").write_bytes(pickle.dumps([ref(2, 2)], 2))
    with pytest.raises(ValueError, match=r"found refs\(google\)\.p, refs\(unc\)\.p; give the one"):
        refcoco.load(folder)
    assert [s.id for s in refcoco.load(folder / "refs(google).p")] == ["2-20", "2-21"]


@given(masks=st.lists(arrays(np.bool_, (H, W)).filter(np.any), min_size=1, max_size=3), general=st.booleans())
@settings(deadline=None, max_examples=20)
def test_what_was_written_is_read_again(tmp_path_factory, masks, general):
    folder = tmp_path_factory.mktemp("refcoco")
    image = str(picture(folder / "from" / "a.png", W, H))
    samples = []
    for i, mask in enumerate(masks):
        target = target_of(mask, other_boxes=[(1, 2, 3.25, 4)])
        samples += [Sample(f"{i}-{j}", image, f"words {i} {j}", target) for j in range(2)]
    samples.append(Sample("named", image, "words", target_of(masks[0])))
    if general:
        samples.append(Sample("9-1", image, "nothing", Target(mask=np.zeros((H, W), bool))))
        mask = np.zeros((H, W), bool)
        mask[1:5, 2:6] = mask[7:9, 10:14] = True
        objects = (((2, 1, 6, 5), (3, 2)), ((10, 7, 14, 9), (11, 8)))
        samples.append(Sample("9-2", image, "both", target_of(mask, box=(2, 1, 14, 9), objects=objects)))
    file = refcoco.write(samples, folder / "to", split="val")
    assert file.name == ("grefs(unc).json" if general else "refs(unc).p")
    assert list(map(told, refcoco.load(folder / "to", split="val"))) == list(map(told, samples))
