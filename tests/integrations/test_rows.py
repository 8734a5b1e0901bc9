"""Rows and labels as the adapters hand them to a scorer: each fault in its own row, counted in the log."""

import logging
import multiprocessing
import pickle
import threading
import warnings
from pathlib import Path

import pytest
from PIL import Image

import dpad_fast as df
from dpad_fast.integrations._row_reader import row_of
from dpad_fast.integrations._rows import Recipe, RowScorer, lowest, numbers_of, totals
from dpad_fast.testing import rewards as shared
from dpad_fast.testing.faulty_rows import expected_totals, faulty_rows

SEEN = (84, 84)
QWEN = {"patch_size": 14, "merge_size": 2, "min_pixels": 56 * 56, "max_pixels": 28 * 28 * 1280}


@pytest.fixture(scope="module")
def scorer():
    return df.ScorerSpec(df.RewardConfig.preset("dpad"), encoder="shapes", threads=1).build()


@pytest.fixture(scope="module")
def geometry():
    """Only what needs no picture."""
    return df.RewardScorer(df.RewardConfig.preset("dpad", terms=("iou", "box_l1"), gate=False))


def test_each_fault_stays_in_its_row_and_is_counted(scorer, tmp_path, caplog):
    rows = faulty_rows(tmp_path)
    used = RowScorer(scorer, "a framework")
    with caplog.at_level(logging.WARNING):
        batch = used.score([row.completion for row in rows], [row.label() for row in rows])
    assert totals(batch, None) == expected_totals(scorer, rows)
    assert [reason for reason, row in zip(batch.reasons, rows, strict=True) if row.reason] == [
        row.reason for row in rows if row.reason
    ]
    [said] = [record.getMessage() for record in caplog.records]
    assert said.startswith("a framework: 4 of 7 rows cannot be scored (bad-image 2, bad-size 1, bad-target 1), 4 of 7")
    assert "images[3] cannot be opened" in said
    assert (used.rows, used.unscored) == (7, 4)


def test_rows_one_at_a_time_are_batched_and_their_faults_told_ever_more_seldom(scorer, tmp_path, caplog):
    rows = faulty_rows(tmp_path)
    used = RowScorer(scorer, "a framework", batched=True)
    found = {}

    def ask(i):
        found[i] = totals(used.score([rows[i].completion], [rows[i].label()]), None)[0]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(rows))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(len(rows))] == expected_totals(scorer, rows)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(60):
            used.score([shared.completion()], [ValueError("no label")])
    assert used.unscored == 64
    assert [record.getMessage().split(",")[1] for record in caplog.records] == [
        f" {count} of {3 + count} so far: targets[0]: no label" for count in (5, 6, 7, 8, 16, 32, 64)
    ]


def test_settings_of_none_are_not_given(tmp_path, monkeypatch):
    """As YAML and Hydra write what is left to others."""
    file = tmp_path / "scorer.yaml"
    file.write_text("preset: seg-zero\nthreads: null\n")
    monkeypatch.setenv("DPAD_FAST_SCORER", str(file))
    assert Recipe("x", {"url": None, "image": None}).made().config.name == "seg-zero"


def test_pictures_are_needed_where_a_term_looks_at_them(scorer, geometry):
    row = {"solution": shared.SOLUTION}
    assert totals(RowScorer(geometry, "x").score([shared.completion()], [row]), None) == [2.0]
    batch = RowScorer(scorer, "x").score([shared.completion()], [row])
    assert batch.reasons == ("bad-image",)
    for images, words in (([], "no pictures"), (None, "no pictures"), ([shared.picture()] * 2, "2 pictures")):
        batch = RowScorer(scorer, "x").score([shared.completion()], [{**row, "images": images}])
        assert words in batch.errors[0]


def test_a_bad_label_takes_no_score_from_rows_that_need_no_picture(geometry):
    rows = [{"solution": shared.SOLUTION}, ValueError("no label"), {"solution": shared.SOLUTION}]
    batch = RowScorer(geometry, "x").score([shared.completion()] * 3, rows)
    assert totals(batch, None) == [2.0, None, 2.0]
    assert batch.reasons[1] == "bad-target"


def test_a_picture_whose_size_is_needed_is_needed(geometry):
    """Without it the answer would be read in pixels of another picture, and get a wrong score."""
    for shown in ({"image": "/nobody.png"}, {"image": None}, {}):
        row = {"solution": shared.SOLUTION, **shown}
        batch = RowScorer(geometry, "x", processor=QWEN).score([shared.completion()], [row])
        assert batch.reasons == ("bad-image",), shown


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"columns": {"bx": "a"}}, "columns must map the fields of Columns to names, got .*'bx'"),
        ({"columns": {"solution": 5}}, "columns.solution must be a column's name, got 5"),
        ({"columns": "solution"}, "columns"),
        ({"image": 5}, "image must be the name of the picture's column, got 5"),
        ({"image_root": 5}, "image_root must be a folder, got 5"),
    ],
)
def test_a_bad_setting_of_rows_is_named(geometry, setting, message):
    with pytest.raises(ValueError, match=message):
        RowScorer(geometry, "x", **setting)


def test_parts_of_a_picture_are_parts_of_the_one_that_is_scored(geometry, tmp_path):
    """Whose path begins at `image_root`, or which stands in a chat beside the row, as verl's do."""
    shared.picture().save(tmp_path / "a.png")
    fractions = {"ref": ["cat"], "bbox": [[20 / 96, 12 / 72, 64 / 96, 52 / 72]], "bbox_type": "norm1"}
    chat = [{"role": "user", "content": [{"type": "image", "image": str(tmp_path / "a.png")}]}]
    where = {"box": fractions["bbox"][0]}
    config = df.RewardConfig.preset("dpad", terms=("iou",), gate=False)
    rooted = {"image_root": tmp_path}
    for settings, row in (
        (rooted, {"objects": fractions, "images": [{"bytes": None, "path": "a.png"}]}),
        (rooted, {"objects": fractions, "image": Path("a.png")}),
        (rooted, {"objects": fractions, "image": {"bytes": None, "path": Path("a.png")}}),
        ({}, {"objects": fractions, "messages": chat}),
        ({"columns": {"box": "box", "space": "0-1"}}, {**where, "messages": chat}),
        ({"columns": {"box": "box", "space": "0-1", "image": "image"}, **rooted}, {**where, "image": "a.png"}),
    ):
        batch = RowScorer(df.RewardScorer(config), "x", **settings).score([shared.completion()], [row])
        assert (totals(batch, None), batch.errors) == ([1.0], (None,)), (settings, row)


def test_the_size_that_the_model_saw(geometry):
    factors = SEEN[0] / 96, SEEN[1] / 72
    box = [value * factors[i % 2] for i, value in enumerate((20, 12, 64, 52))]
    text, row = shared.completion(box), {"solution": shared.SOLUTION, "image": Image.new("RGB", (96, 72))}
    for used, given in (
        (RowScorer(geometry, "x", processor=QWEN), row),
        (RowScorer(geometry, "x"), {**row, "model_size": list(SEEN)}),
        (RowScorer(geometry, "x", batched=True), {**row, "model_size": SEEN}),
        (RowScorer(geometry, "x"), {"solution": shared.SOLUTION, "image_size": [96, 72], "model_size": SEEN}),
    ):
        assert totals(used.score([text], [given]), None) == [2.0]
    batch = RowScorer(geometry, "x").score([text], [{**row, "model_size": [84.5, 84]}])
    assert batch.reasons == ("bad-size",)
    assert "model_sizes[0]: model_size must be (width, height)" in batch.errors[0]


def test_relative_paths_begin_at_the_root(scorer, tmp_path):
    shared.picture(1).save(tmp_path / "a.png")
    want = totals(RowScorer(scorer, "x").score([shared.completion()], [label(str(tmp_path / "a.png"))]), None)
    used = RowScorer(scorer, "x", image_root=tmp_path)
    for image in ("a.png", {"bytes": None, "path": "a.png"}, str(tmp_path / "a.png"), shared.picture(1)):
        assert totals(used.score([shared.completion()], [label(image)]), None) == want


def label(image):
    return {"solution": shared.SOLUTION, "image": image}


def test_a_process_that_is_forked_while_the_scorer_is_made_makes_its_own(geometry):
    recipe, context = Recipe("x", {"scorer": geometry}), multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    with recipe._lock:  # as another thread would hold it
        child = context.Process(target=lambda: queue.put(recipe.made().rows), daemon=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads
            child.start()
    child.join(20)
    if child.is_alive():
        child.kill()
    assert child.exitcode == 0
    assert queue.get() == 0


def test_labels():
    assert row_of(shared.SOLUTION) == {"solution": shared.SOLUTION}
    assert row_of(' {"solution": "x", "image": "a.png"}') == {"solution": "x", "image": "a.png"}
    assert row_of({"box": [1, 2, 3, 4]}) == {"box": [1, 2, 3, 4]}
    for bad, words in (
        ("{x", "looks like a JSON object"),
        (None, "got None"),
        ([1], r"got \[1\]"),
        ("{" * 9999, "JSON"),
    ):
        with pytest.raises(ValueError, match=words):
            raise row_of(bad)


def test_columns_may_be_plain_settings(geometry):
    used = RowScorer(geometry, "x", columns={"box": "where", "box_format": "xywh"})
    assert totals(used.score([shared.completion()], [{"where": [20, 12, 44, 40]}]), None) == [2.0]
    with pytest.raises(ValueError, match="columns must be Columns"):
        RowScorer(geometry, "x", columns="where")


def test_the_released_code_reads_any_text(geometry):
    released = df.RewardScorer(df.RewardConfig.preset("dpad-released", terms=("iou",)))
    texts = [shared.completion()] * 2
    batch = RowScorer(released, "x").score(texts, [row_of(shared.SOLUTION), row_of("nothing to read")])
    assert batch.total.tolist() == released.score(texts, [shared.SOLUTION, "nothing to read"]).total.tolist()


def test_a_recipe_is_made_once_per_process_and_can_be_sent(scorer, monkeypatch, tmp_path):
    recipe = Recipe("x", {"preset": "dpad", "encoder": "shapes", "threads": 1, "image_root": str(tmp_path)})
    assert recipe.made() is recipe.made()
    other = pickle.loads(pickle.dumps(recipe))
    assert other.made() is not recipe.made()
    assert pickle.loads(pickle.dumps(recipe)) is other  # sent with every call, it is made once
    assert other.made().config == scorer.config
    assert Recipe("x", {"scorer": scorer}).made().scorer is scorer
    with pytest.raises(ValueError, match="unknown setting 'encodr' for x; known: columns, image"):
        Recipe("x", {"encodr": "shapes"})
    with pytest.raises(ValueError, match="scorer must be a RewardScorer, a RemoteScorer or another like them, got 5"):
        Recipe("x", {"scorer": 5}).made()
    with pytest.raises(ValueError, match="give scorer or encoder, not both"):
        Recipe("x", {"encoder": "shapes", "scorer": scorer}).made()
    monkeypatch.delenv("DPAD_FAST_SCORER", raising=False)
    with pytest.raises(ValueError, match="DPAD_FAST_SCORER is not set"):
        Recipe("x", {}).made()
    file = tmp_path / "scorer.yaml"
    file.write_text("encoder: shapes\nthreads: 1\n")
    monkeypatch.setenv("DPAD_FAST_SCORER", str(file))
    assert Recipe("x", {}).made().config == scorer.config


def test_numbers_for_logs_have_the_same_keys_in_every_row(scorer, tmp_path):
    rows = faulty_rows(tmp_path)
    batch = RowScorer(scorer, "x").score([row.completion for row in rows], [row.label() for row in rows])
    found = [numbers_of(batch, i) for i in range(len(rows))]
    assert {tuple(numbers) for numbers in found} == {(*scorer.config.terms, "s1_over_s2", "malformed", "unscored")}
    assert all(value == value for numbers in found for value in numbers.values())
    assert [numbers["unscored"] for numbers in found] == [0, 0, 0, 1, 1, 1, 1]
    assert [numbers["malformed"] for numbers in found[:3]] == [0, 1, 1]


def test_the_lowest_reward():
    assert lowest(df.RewardConfig.preset("dpad")) == 0.0
    assert lowest(df.RewardConfig.preset("dpad", terms=("iou",), weights={"iou": -2.0})) == -2.0


def test_as_many_rows_as_completions(geometry):
    with pytest.raises(ValueError, match="rows has 1 entries for 2 completions"):
        RowScorer(geometry, "x").score(["a", "b"], [{}])
