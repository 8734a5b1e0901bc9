"""The adapter of ms-swift, against a stand-in of its registry; with_swift/ has the real release."""

import runpy
import sys
import types
from pathlib import Path

import pytest

import dpad_fast as df
from dpad_fast.integrations.swift import register
from dpad_fast.testing import rewards as shared
from dpad_fast.testing.faulty_rows import expected_totals, faulty_rows

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def orms(monkeypatch):
    """A stand-in of `swift.rewards`: a registry, and a base class that keeps the trainer's arguments."""

    class ORM:
        def __init__(self, args=None, **kwargs):
            self.args = args

    module = types.ModuleType("swift.rewards")
    module.ORM, module.orms = ORM, {}
    monkeypatch.setitem(sys.modules, "swift", types.ModuleType("swift"))
    monkeypatch.setitem(sys.modules, "swift.rewards", module)
    return module.orms


@pytest.fixture(scope="module")
def scorer():
    return df.ScorerSpec(df.RewardConfig.preset("dpad"), encoder="shapes", threads=1).build()


class Counting:
    """A scorer that counts its calls."""

    def __init__(self, scorer):
        self.scorer, self.config, self.calls = scorer, scorer.config, 0

    def score(self, *columns, **settings):
        self.calls += 1
        return self.scorer.score(*columns, **settings)


def columns(rows):
    """The keywords of ms-swift's call: columns of the data set, its own, and the trainer's state."""
    return {
        "trainer_state": object(),
        "messages": [[{"role": "user", "content": "<image>where?"}]] * len(rows),
        "prompt_id": [f"p{i}" for i in range(len(rows))],
        "images": [[{"bytes": None, "path": row.picture}] for row in rows],
        "solution": [row.solution for row in rows],
        "image_size": [list(shared.SIZE)] * len(rows),
    }


def test_totals_and_terms_of_one_scoring(orms, scorer, tmp_path):
    counting, rows = Counting(scorer), faulty_rows(tmp_path)
    register(scorer=counting, terms=["iou", "discriminative"])
    assert list(orms) == ["dpad", "dpad_iou", "dpad_discriminative"]
    functions = {name: orms[name](args="the trainer's") for name in orms}
    assert [type(function).__name__ for function in functions.values()] == list(orms)  # what it is logged under
    assert functions["dpad"].args == "the trainer's"
    texts = [row.completion for row in rows]
    found = {name: function(texts, **columns(rows)) for name, function in functions.items()}
    assert found["dpad"] == expected_totals(scorer, rows)
    batch = scorer.score(texts[:3], [shared.SOLUTION] * 3, [row.picture for row in rows[:3]])
    for term in ("iou", "discriminative"):
        assert found[f"dpad_{term}"] == [*batch.terms[term].tolist(), None, None, None, None]
    assert counting.calls == 1
    texts[0] = "another answer in the same list"
    assert functions["dpad"](texts, **columns(rows))[0] == 0.0
    assert counting.calls == 2


def test_rows_without_a_picture(orms, scorer):
    register(scorer=scorer)
    texts, truth = [shared.completion()] * 3, [shared.SOLUTION] * 3
    image = [{"bytes": None, "path": "nowhere.png"}]
    assert orms["dpad"]()(texts, solution=truth, images=[None, [], image]) == [None] * 3
    assert orms["dpad"]()(texts, solution=truth) == [None] * 3


def test_a_column_of_another_length_is_refused(orms, scorer):
    register(scorer=scorer)
    with pytest.raises(ValueError, match="solution has 1 entries for 2 completions"):
        orms["dpad"]()(["a", "b"], solution=[shared.SOLUTION])


def test_objects_are_the_truth(orms):
    config = df.RewardConfig.preset("dpad", terms=("iou",), gate=False)
    register("place", scorer=df.RewardScorer(config))
    objects = [{"ref": ["cat"], "bbox": [[20, 12, 64, 52]], "bbox_type": "real"}, None]
    assert orms["place"]()([shared.completion()] * 2, objects=objects) == [1.0, None]


def test_wrong_settings(orms, scorer):
    with pytest.raises(ValueError, match="unknown setting 'presets' for ms-swift"):
        register(presets="dpad")
    register(scorer=scorer, terms=["mask_iou"])
    with pytest.raises(
        ValueError, match="terms has 'mask_iou', which the scorer does not compute; it has think_format"
    ):
        orms["dpad_mask_iou"]()


def test_the_example(orms, scorer, tmp_path, monkeypatch):
    monkeypatch.setenv("DPAD_FAST_SCORER", str(EXAMPLES / "scorer.yaml"))
    runpy.run_path(str(EXAMPLES / "ms-swift" / "plugin_dpad.py"))
    row = faulty_rows(tmp_path)[0]
    given = columns([row]) | {"model_size": [shared.SIZE]}
    assert orms["dpad"]()([row.completion], **given) == expected_totals(scorer, [row])
    assert orms["dpad_iou"]()([row.completion], **given) == [1.0]
