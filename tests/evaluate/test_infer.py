"""From a picture and a question to an answer in pixels of the picture: greedy, sampled, several objects, S1 and S2."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import dpad_fast as df
from dpad_fast.data import shapes
from dpad_fast.evaluate import infer as module
from dpad_fast.evaluate.infer import ask_as, coordinates_of, infer, read_answer
from dpad_fast.segmenters import SamSegmenter, make_segmenter
from dpad_fast.testing.segmenters import small_sam2
from dpad_fast.train.policy import load_policy
from dpad_fast.train.tiny_policy import tiny_policy

ONE = {"bbox": [10, 20, 50, 60], "points_1": [20, 30], "points_2": [40, 50]}


def text(answer, caption="a red circle"):
    tail = "" if caption is None else f"<caption>{caption}</caption>"
    return f"<think>it is red</think><answer>{json.dumps(answer)}</answer>{tail}"


@pytest.fixture(scope="module")
def policy():
    return load_policy("policy-e")


@pytest.fixture
def says(monkeypatch):
    """A function: texts -> a policy that says them."""

    def says(*texts):
        monkeypatch.setattr(module, "sample_completions", lambda *_, **__: [[each] for each in texts])

    return says


def test_greedy_is_what_the_policy_generates_by_itself(policy):
    model, processor = policy
    scenes = [shapes.sample(5, i) for i in range(3)]
    expected = []
    for scene in scenes:
        messages = ask_as("{question}")(scene.query)
        prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
        inputs = processor(text=[prompt], images=[scene.image], return_tensors="pt")
        made = model.generate(**inputs, max_new_tokens=100, do_sample=False)
        expected.append(processor.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0])
    for batch in (1, 3):
        images, queries = [s.image for s in scenes], [s.query for s in scenes]
        found = infer(model, processor, images, queries, batch=batch, max_new_tokens=100)
        assert [answer.answer.text for (answer,) in found] == expected


def test_samples_are_the_seeds(policy):
    scene = shapes.sample(5, 0)

    def texts(seed):
        given = {"per_image": 6, "temperature": 1.5, "seed": seed, "max_new_tokens": 40}
        return [a.answer.text for a in infer(*policy, [scene.image], [scene.query], **given)[0]]

    assert texts(1) == texts(1) != texts(2)
    assert len(set(texts(1))) > 1


def test_answers_come_in_pixels_of_the_picture(policy):
    """The policy sees 112 x 112 pixels of whatever it is given; a picture of twice the size has boxes of twice."""
    scene = shapes.sample(9000, 0)
    large = scene.image.resize((224, 224), Image.Resampling.NEAREST)
    ((small,), (twice,)) = infer(*policy, [scene.image, large], [scene.query] * 2, segmenter=make_segmenter("box"))
    assert small.prompts[0].box == scene.target.box
    assert [round(v / 28) for v in twice.prompts[0].box] == [round(2 * v / 28) for v in small.prompts[0].box]
    assert (small.mask.shape, twice.mask.shape) == ((112, 112), (224, 224))


@pytest.mark.parametrize(
    ("space", "box"), [("pixel", (10, 20, 50, 60)), ("norm1000", (2, 2, 10, 6)), ("norm1", (2000, 2000, 10000, 6000))]
)
def test_each_space(says, policy, space, box):
    says(text(ONE))
    image = Image.new("RGB", (200, 100))
    size = (200, 100) if space != "pixel" else (112, 112)
    ((found,),) = infer(*policy, [image if space != "pixel" else image.resize(size)], ["q"], coordinates=space)
    assert found.prompts[0].box == pytest.approx(box)
    assert found.size == size


def test_forms_of_answers():
    assert read_answer(text(ONE)).box == (10, 20, 50, 60)
    plain = read_answer(text(ONE, None))
    assert (plain.box, plain.caption, plain.reasons) == ((10, 20, 50, 60), None, ())
    several = read_answer(text([{"bbox_2d": [1, 2, 3, 4], "point_2d": [2, 3]}, {"bbox_2d": [5, 6, 7, 8]}], None))
    assert several.objects == (((1, 2, 3, 4), (2, 3)), ((5, 6, 7, 8), None))
    drawn = read_answer(text({"polygon": [[1, 1], [1, 5], [5, 5]]}))
    assert drawn.rings[0].tolist() == [[1, 1], [1, 5], [5, 5]]
    assert read_answer("").reasons == ("no-tags",)
    assert read_answer(text(ONE | {"bbox": [1, 2]})).reasons[0] == "bad-field"


def test_masks_and_plain_data_of_several_objects(says, policy):
    objects = [{"bbox_2d": [0, 0, 10, 10], "point_2d": [2, 3]}, {"bbox_2d": [50, 50, 60, 70], "point_2d": [55, 60]}]
    says(text(objects, None), "no answer", text({"polygon": [[0, 0], [0, 9], [9, 9], [9, 0]]}))
    image = Image.new("RGB", (112, 112))
    found = [rows[0] for rows in infer(*policy, [image] * 3, ["q"] * 3, segmenter=make_segmenter("polygon"))]
    assert [None if a.mask is None else int(a.mask.sum()) for a in found] == [300, None, 100]
    row = json.loads(json.dumps(found[0].to_dict(), allow_nan=False))
    assert row["objects"][1] == {"box": [50, 50, 60, 70], "points": [[55, 60]], "labels": [1]}
    assert np.array_equal(df.coco_mask.decode(row["mask"]), found[0].mask)
    assert (found[1].to_dict()["reason"], found[1].to_dict()["mask"]) == ("no-tags", None)
    assert found[2].to_dict()["polygons"] == [[[0, 0], [0, 9], [9, 9], [9, 0]]]


def test_s1_and_s2_are_the_scorers(says, policy):
    encoder = df.load_encoder("shapes", precision="float32")
    scenes = [shapes.sample(5, i) for i in range(2)]
    x1, y1, x2, y2 = scenes[0].target.box
    middle = [(x1 + x2) / 2, (y1 + y2) / 2]
    answer = text({"bbox": [x1, y1, x2, y2], "points_1": middle, "points_2": middle})
    off = text({"bbox": [300, 300, 400, 400], "points_1": [300, 300], "points_2": [300, 300]})
    says(answer, off)
    found = infer(*policy, [s.image for s in scenes], ["q"] * 2, encoder=encoder)
    batch = df.RewardScorer(df.RewardConfig.preset("dpad"), encoder).score(
        [answer], [scenes[0].target], [scenes[0].image]
    )
    assert found[0][0].s1 == pytest.approx(batch.similarity["roi"].item(), abs=1e-5)
    assert found[0][0].s2 == pytest.approx(batch.similarity["aoi"].item(), abs=1e-5)
    assert (found[1][0].s1, found[1][0].s2) == (None, None)  # a box beside the picture


def test_a_real_policys_class_with_sam():
    model, processor = tiny_policy("Qwen/Qwen2.5-VL-3B-Instruct")
    images = [Image.new("RGB", (200, 120), (90, 30, 30)), Image.new("RGB", (70, 160))]
    given = {"max_new_tokens": 3, "segmenter": SamSegmenter(*small_sam2()), "ask": ask_as("dpad", "You look.")}
    found = infer(model, processor, images, ["the dark one", "the other"], **given)
    assert [(a.size, a.mask, a.prompts) for (a,) in found] == [((200, 120), None, []), ((70, 160), None, [])]


def test_a_picture_that_the_policy_cannot_see_is_named():
    model, processor = tiny_policy("Qwen/Qwen2.5-VL-3B-Instruct")
    images = [Image.new("RGB", (60, 60)), Image.new("RGB", (3000, 1))]
    with pytest.raises(ValueError, match=r"^images\[1\]: the policy cannot see a picture of 3000 x 1 pixels: .*aspect"):
        infer(model, processor, images, ["this", "that"], max_new_tokens=2)


def test_sam_gets_the_answers_prompt(says, policy):
    says(text(ONE))
    scene, segmenter = shapes.sample(5, 0), SamSegmenter(*small_sam2())
    ((found,),) = infer(*policy, [scene.image], ["q"], segmenter=segmenter)
    (mask,) = segmenter.segment([read_answer(text(ONE))], [scene.image], [(112, 112)])
    assert np.array_equal(found.mask, mask)
    assert 0 < mask.sum() < mask.size


def test_spaces_by_family(policy):
    assert coordinates_of(policy[0]) == "pixel"
    assert coordinates_of(tiny_policy("Qwen/Qwen3-VL-4B-Instruct")[0]) == "norm1000"
    with pytest.raises(ValueError, match="coordinates: Linear has no space of its own"):
        coordinates_of(torch.nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queries": []}, "images has 1 entries, queries has 0"),
        ({"per_image": 2}, "per_image is 2, but at temperature 0"),
        ({"coordinates": "percent"}, "coordinates must be one of pixel, norm1000, norm1, got 'percent'"),
        ({"images": ["/none.png"]}, r"images\[0\]"),
        ({"temperature": -1.0}, "temperature must be 0 .greedy. or more"),
        ({"temperature": float("nan")}, "temperature must be 0 .greedy. or more"),
        ({"batch": 0}, "batch must be at least 1"),
    ],
)
def test_bad_arguments(policy, settings, message):
    with pytest.raises(ValueError, match=message):
        infer(*policy, **{"images": [Image.new("RGB", (9, 9))], "queries": ["q"], **settings})
