"""`dpad-fast evaluate` on data with boxes and no masks (rows, COCO, RefCOCO): what is measured and what is not."""

import json

import pytest
from PIL import Image

NAMES = ("box_giou", "box_ciou", "box_p50")


def answer(box):
    return f"<think>t</think><answer>{json.dumps({'bbox_2d': box})}</answer>"


def vlm(box):
    return json.dumps([{"bbox_2d": box, "label": "x"}])


@pytest.fixture
def boxes(tmp_path):
    """Four rows with a box of 10 x 10 each, in three forms; answers with IoU 1, 0.5, 25/175 and none."""
    picture = tmp_path / "images" / "p.png"
    picture.parent.mkdir()
    Image.new("RGB", (60, 40), (9, 80, 7)).save(picture)
    truth = [[0, 0, 10, 10]] * 4
    rows = [{"id": f"{i + 1}", "image": "images/p.png", "query": f"q{i}", "box": box} for i, box in enumerate(truth)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entries = [{"id": i + 1, "image_id": 1, "bbox": [0, 0, 10, 10], "category_id": 1} for i in range(4)]
    images = [{"id": 1, "file_name": "p.png", "width": 60, "height": 40}]
    (tmp_path / "coco").mkdir()
    content = {"images": images, "annotations": [{**e, "expressions": ["q"]} for e in entries], "categories": []}
    (tmp_path / "coco" / "i.json").write_text(json.dumps(content))
    (tmp_path / "refcoco").mkdir()
    (tmp_path / "refcoco" / "instances.json").write_text(json.dumps({**content, "annotations": entries}))
    refs = [
        {"ref_id": i + 1, "image_id": 1, "ann_id": i + 1, "split": "val", "sentences": [{"sent": "q"}]}
        for i in range(4)
    ]
    (tmp_path / "refcoco" / "refs(unc).json").write_text(json.dumps(refs))
    texts = [vlm([0, 0, 10, 10]), vlm([0, 0, 10, 20]), vlm([5, 5, 15, 15]), "no answer"]
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps({"id": i + 1, "completion": text}) + "\n" for i, text in enumerate(texts)))
    return tmp_path, path


@pytest.mark.parametrize("form", ["rows.jsonl", "coco", "refcoco"])
def test_boxes_alone_are_measured_as_boxes(boxes, measured, form):
    folder, path = boxes
    options = () if form == "rows.jsonl" else ("--images", folder / "images")
    found, values = measured(path, "--data", folder / form, "--format", "vlm-r1", "--protocol", "all", *options)
    assert [values[name] for name in NAMES] == pytest.approx(
        [(1 + 0.5 + 25 / 175) / 4, (100 + 100 + 25) / (100 + 200 + 175 + 100), 0.5]
    )
    assert "giou" not in values
    for own in found["protocols"].values():
        assert (own["n"], own["dropped"], own["not_measured"]) == (0, 0, "no masks")
        assert "gIoU" not in own
    assert found["n"] == 4
    assert any("4 of 4 records have a true box but no true mask" in note for note in found["notes"])
    record = found["records"][1]
    assert (record["iou"], record["box_areas"], record["truth"]["mask"]) == (None, [100, 200], None)


@pytest.mark.parametrize("table", ["text", "markdown", "latex"])
def test_every_table_says_what_is_not_measured(boxes, run, table):
    folder, path = boxes
    said = run("evaluate", path, "--data", folder / "rows.jsonl", "--format", "vlm-r1", "--table", table)
    assert "not measured: no masks" in said
    assert "REC Acc@0.5" in said
    assert "50.0" in said


def test_masks_and_boxes_together(boxes, measured):
    folder, path = boxes
    file = folder / "rows.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[0] |= {"polygons": [[[0, 0], [10, 0], [10, 10], [0, 10]]]}  # drawn by COCO's rule: 100 pixels
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, values = measured(path, "--data", file, "--format", "vlm-r1", "--segmenter", "box")
    assert (found["protocols"]["strict"]["n"], values["giou"]) == (1, 1.0)
    assert "not_measured" not in found["protocols"]["strict"]
    assert values["box_p50"] == 0.5
    assert any("3 of 4 records have a true box but no true mask" in note for note in found["notes"])


def test_missing_answers_count_as_zero(boxes, measured):
    folder, path = boxes
    path.write_text(path.read_text().splitlines()[0])
    data = ("--data", folder / "rows.jsonl", "--format", "vlm-r1")
    assert measured(path, *data)[1]["box_p50"] == 1
    assert measured(path, *data, "--missing", "count-zero")[1]["box_p50"] == 0.25


def test_predicted_masks_have_no_box_to_compare(boxes, measured):
    folder, path = boxes
    path.write_text(json.dumps({"id": "1", "mask": {"size": [40, 60], "counts": [0, 2400]}}))
    values = measured(path, "--data", folder / "rows.jsonl", "--missing", "count-zero")[1]
    assert not set(NAMES) & set(values)


def test_comparison_of_boxes(boxes, measured):
    folder, path = boxes
    other = folder / "other.jsonl"
    other.write_text("".join(json.dumps({"id": str(i), "completion": "?"}) + "\n" for i in range(1, 5)))
    found = measured(path, "--data", folder / "rows.jsonl", "--format", "vlm-r1", "--compare", other)[0]
    assert found["comparison"]["differences"]["every protocol"]["box_p50"]["value"] == 0.5
