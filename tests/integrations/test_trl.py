"""`TrlRewards`: one scoring feeds all reward functions, and completions are read in every form that TRL hands over."""

import math

import pytest

from dpad_fast.data import shapes
from dpad_fast.data.shapes_text import MIXTURES, completion_of
from dpad_fast.integrations.trl import TrlRewards, completion_texts, parse_solution
from dpad_fast.rewards import RewardConfig, RewardScorer

TERMS = ["think_format", "answer_format", "iou", "box_l1", "point_l1"]
SOLUTION = "<box>(0,0),(9,9)</box><points>(1,1),(2,2)</points>"


class Counting(RewardScorer):
    """A scorer without an encoder that counts its calls and remembers the keys."""

    def __init__(self, **changes):
        super().__init__(RewardConfig.from_dict({"preset": "dpad", "terms": TERMS, **changes}))
        self.calls = []

    def score(self, completions, targets, images=None, image_keys=None, model_sizes=None, on_error="raise"):
        self.calls.append((list(completions), image_keys))
        return super().score(completions, targets, images, image_keys, model_sizes, on_error)


def step(conversational=True, column="image"):
    """What TRL passes for two scenes with two completions each, one of them malformed."""
    import numpy as np

    rng = np.random.default_rng(0)
    items = [shapes.sample(5, index) for index in (0, 0, 1, 1)]
    texts = [completion_of(item, MIXTURES["e"], rng) for item in items]
    texts[3] = "no idea"
    completions = [[{"role": "assistant", "content": text}] for text in texts] if conversational else texts
    images = [item.image if column == "image" else [item.image] for item in items]
    return {
        "prompts": [[{"role": "user", "content": item.query}] for item in items],
        "completions": completions,
        "completion_ids": [[1, 2]] * 4,
        column: images,
        "solution": [item.target.text for item in items],
        "id": [item.id for item in items],
        "trainer_state": None,
        "log_extra": None,
    }


@pytest.mark.parametrize("conversational", [True, False])
@pytest.mark.parametrize("column", ["image", "images"])
def test_one_scoring_feeds_all_functions(conversational, column):
    scorer = Counting()
    functions = TrlRewards(scorer).functions()
    assert [f.__name__ for f in functions] == TERMS
    call = step(conversational, column)
    columns = [f(**call) for f in functions]
    assert len(scorer.calls) == 1
    assert scorer.calls[0][1] == call["id"]
    assert all(type(value) is float for values in columns for value in values)
    assert [values[3] for values in columns] == [0.0] * 5
    assert columns[0][:3] == [1.0] * 3
    following = step(conversational, column)  # another list object: another step
    for f in functions:
        f(**following)
    assert len(scorer.calls) == 2


def test_total_is_the_weighted_sum_of_the_functions():
    rewards = TrlRewards(Counting(weights={"iou": 2.0, "box_l1": 0.5}))
    assert rewards.weights() == [1.0, 1.0, 2.0, 0.5, 1.0]
    call = step()
    columns = [f(**call) for f in rewards.functions()]
    total = rewards.total()
    assert total.__name__ == "dpad"
    expected = [sum(w * c[i] for w, c in zip(rewards.weights(), columns, strict=True)) for i in range(4)]
    assert total(**call) == pytest.approx(expected)


def test_metrics_are_logged_once_a_step():
    logged = []
    call = {**step(), "log_metric": lambda name, value: logged.append((name, value))}
    for f in TrlRewards(Counting()).functions():
        f(**call)
    names = [name for name, _ in logged]
    assert len(names) == len(set(names))
    assert dict(logged)["dpad/malformed"] == 0.25
    assert dict(logged)["dpad/s1_over_s2"] == 0.0
    assert all(math.isfinite(value) for _, value in logged)


def test_targets_can_come_from_elsewhere():
    rows = []

    def target_of(row):
        rows.append(row)
        return shapes.from_id(row["id"]).target

    TrlRewards(Counting(), target_of).total()(**step())
    assert [set(row) >= {"id", "solution", "image"} for row in rows] == [True] * 4


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"image": None}, "needs an image or images column"),
        ({"solution": None}, "the data set has no column 'solution'"),
        ({"solution": [SOLUTION, "nothing", "", ""]}, r"targets\[1\]: text holds no <box>"),
        ({"image": [None] * 4}, r"images\[0\] \(column image\) is None"),
    ],
)
def test_mistakes_in_the_data_are_named(change, complaint):
    call = {key: value for key, value in {**step(), **change}.items() if value is not None}
    with pytest.raises(ValueError, match=complaint):
        TrlRewards(Counting(), on_error="raise").total()(**call)


def test_two_images_a_row_are_refused():
    call = step(column="images")
    call["images"][2] = call["images"][2] * 2
    with pytest.raises(ValueError, match=r"images\[2\] holds 2 images"):
        TrlRewards(Counting(), on_error="raise").total()(**call)


def test_completion_texts():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    given = [
        "x",
        [{"role": "assistant", "content": "y"}],
        [{"content": parts}],
        [{"role": "assistant", "content": None}],
    ]
    assert completion_texts(given) == ["x", "y", "ab", ""]
    for bad in (3, [], ["x"], [{"content": 3}], [{"content": [3]}], [{"content": "y", "thinking": 3}]):
        with pytest.raises(ValueError, match=r"completions\[1\]"):
            completion_texts(["x", bad])


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
def test_thoughts_beside_the_content_are_read(key):
    thought = "<think>so it is</think>"
    given = [
        [{"role": "assistant", key: "so it is", "content": "<answer>"}],
        [{"role": "assistant", key: "so it is", "content": [{"type": "text", "text": "<answer>"}]}],
        [{"role": "assistant", "content": [{"type": key, key: "so it is"}, {"type": "text", "text": "<answer>"}]}],
        [{"role": "assistant", key: "so it is", "content": None}],
        [{"role": "assistant", key: "so it is", "content": "<think>other</think>"}],
        [{"role": "assistant", key: None, "content": "x"}],
        [{"role": "assistant", key: "", "content": ["x", {"type": "image"}, "y"]}],
    ]
    texts = [
        f"{thought}<answer>",
        f"{thought}<answer>",
        f"{thought}<answer>",
        thought,
        "<think>other</think>",
        "x",
        "xy",
    ]
    assert completion_texts(given) == texts


def test_a_parsed_answer_is_worth_what_its_text_is():
    call = step()
    functions = TrlRewards(Counting()).functions()
    expected = [f(**call) for f in functions]
    for row in call["completions"][:3]:
        thought, _, answer = row[0]["content"].partition("<think>")[2].partition("</think>")
        row[0].update(content=answer, reasoning_content=thought)
    assert [f(**call) for f in functions] == expected
    assert expected[0][:3] == [1.0] * 3


def test_solution_is_in_pixels_of_the_image():
    item = shapes.sample(0, 0)
    target = parse_solution({"solution": item.target.text, "image": item.image})
    assert target.box == item.target.box
    assert target.image_size == (112, 112)


def test_a_wrong_box_is_not_malformed():
    logged = {}
    call = {**step(conversational=False), "log_metric": logged.__setitem__}
    call["completions"] = [text.replace('"bbox": [', '"bbox": [-9') for text in call["completions"]]
    batch = TrlRewards(Counting()).score(call["completions"], call)
    assert "wrong-place" in batch.reasons
    assert logged["dpad/malformed"] == batch.reasons.count("no-tags") / 4


@pytest.mark.parametrize("bad", [5, None, [], [5], [{"content": 5}], [{"content": [5]}], [{"thinking": 5}]])
def test_a_completion_that_is_none_is_one_unscored_row(bad):
    scorer = Counting()
    rewards = TrlRewards(scorer)
    call = step()
    expected = rewards.score(call["completions"], call).total.tolist()
    call = step()
    call["completions"][1] = bad
    columns = [function(**call) for function in rewards.functions()]
    assert len(scorer.calls) == 2  # one for either step
    assert [column[1] for column in columns] == [None] * len(TERMS)
    batch = rewards.score(call["completions"], call)
    assert batch.reasons[1] == "bad-completion"
    assert batch.errors[1].startswith("completions[1]")
    assert [batch.total[i] for i in (0, 2, 3)] == [expected[i] for i in (0, 2, 3)]
    with pytest.raises(ValueError, match=r"^completions\[1\]"):
        TrlRewards(scorer, on_error="raise").score(call["completions"], call)
