"""Chunks of predictions: bounded, in order, and taken up where a side file stops; plug-ins; several objects."""

import numpy as np
import pytest

from dpad_fast.evaluate import chunks, summary
from dpad_fast.evaluate.records import Item, Line
from dpad_fast.evaluate.ruler import Ruler, Settings
from dpad_fast.types import Sample, Target


def sample(name, **fields):
    mask = np.zeros((40, 60), bool)
    mask[10:20, 10:30] = True
    return Sample(name, "none.png", "q", Target(mask=mask, image_size=(60, 40), **fields))


def test_chunks_are_bounded_whatever_one_sample_holds():
    lines = [tuple(Line(f"p:{i}", text=str(i)) for i in range(count)) for count in (3, 70, 0, 1, 64)]
    items = [Item(sample(str(i)), some) for i, some in enumerate(lines)]
    found = list(chunks.chunked(items, 32))
    assert all(sum(max(1, len(item.lines)) for item in chunk) <= 32 for chunk in found)
    assert [line for chunk in found for item in chunk for line in item.lines] == [
        line for some in lines for line in some
    ]
    assert sum(item.sample.id == "2" for chunk in found for item in chunk) == 1


def test_a_side_file_of_another_question_begins_anew(tmp_path):
    path = tmp_path / "x.part"
    side, written = chunks.open_side(path, {"a": 1})
    assert written == 0
    chunks._write(side, [{"id": "x"}])
    side.close()
    side, written = chunks.open_side(path, {"a": 1})
    assert (written, list(chunks.results_of(side))) == (1, [{"id": "x"}])
    side.close()
    side, written = chunks.open_side(path, {"a": 2})
    assert (written, list(chunks.results_of(side))) == (0, [])
    side.close()


def everything(answers, images, sizes):
    return [np.ones(size[::-1], bool) for size in sizes]


def test_a_plug_in_segments(monkeypatch):
    monkeypatch.syspath_prepend(str(__file__).rpartition("/")[0])
    item = Item(sample("a"), (Line("p:1", text='{"bbox_2d": [1, 2, 3, 4]}'),))
    (record,) = Ruler(Settings(format="qwen3-vl", segmenter="test_chunks:everything")).measure([item])
    assert (record["intersection"], record["union"]) == (200, 2400)
    with pytest.raises(ValueError, match="segmenter is 'nothing'; known"):
        Ruler(Settings(segmenter="nothing")).measure([item])


def test_open_clip_counts_its_own_tokens():
    open_clip = pytest.importorskip("open_clip")
    item = Item(sample("a"), (Line("p:1", text="<think>unbelievably long reasoning</think>"),))
    (record,) = Ruler(Settings(tokenizer="open_clip")).measure([item])
    assert record["chain_tokens"] == len(open_clip.SimpleTokenizer().encode("unbelievably long reasoning"))


def test_several_boxes_are_one_mask_and_have_an_ap():
    objects = (((10, 10, 20, 20), (15, 15)), ((20, 10, 30, 20), (25, 15)))
    text = '[{"bbox_2d": [10, 10, 20, 20]}, {"bbox_2d": [20, 10, 30, 20]}]'
    settings = Settings(format="qwen3-vl", model_size=(60, 40))
    (record,) = Ruler(settings).measure([Item(sample("a", objects=objects), (Line("p:1", text=text),))])
    assert record["iou"] == 1
    assert summary.box_ap(summary.count([record], ("strict",))) == {"AP50": 1.0, "AP": 1.0}


def test_intervals_are_those_of_a_plain_bootstrap():
    items = [Item(sample(str(i)), (Line("p", text=f'{{"bbox_2d": [10, 10, {12 + i}, 20]}}'),)) for i in range(15)]
    records = Ruler(Settings(format="qwen3-vl", model_size=(60, 40))).measure(items)
    sums = summary.count(records, ("strict",))
    found = summary.estimates(sums, draws=200)["strict"]["cIoU"]
    shared, union = (np.array([record[key] for record in records]) for key in ("intersection", "union"))
    drawn = np.random.default_rng(0).integers(15, size=(200, 15))
    ratios = shared[drawn].sum(axis=1) / union[drawn].sum(axis=1)
    assert found.value == shared.sum() / union.sum()
    assert [found.low, found.high] == pytest.approx(np.percentile(ratios, [2.5, 97.5]), abs=1e-12)
    assert found.error == pytest.approx(np.std(ratios, ddof=1), abs=1e-12)
