"""Box AP equals pycocotools' COCOeval, and metrics' intervals are those of a plain bootstrap."""

import contextlib
import io

import numpy as np
import pytest

from dpad_fast.evaluate.average_precision import average_precision


def coco_ap(predicted, truths):
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def xywh(box):
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    data = {"images": [{"id": i + 1} for i in range(len(truths))], "categories": [{"id": 1}], "annotations": []}
    for i, boxes in enumerate(truths):
        for box in boxes:
            area = (box[2] - box[0]) * (box[3] - box[1])
            entry = {"id": len(data["annotations"]) + 1, "image_id": i + 1, "category_id": 1, "bbox": xywh(box)}
            data["annotations"].append({**entry, "area": area, "iscrowd": 0})
    rows = [{"image_id": i + 1, "category_id": 1, "bbox": xywh(box), "score": box[4]}
            for i, boxes in enumerate(predicted) for box in boxes]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = data
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[1], evaluation.stats[0]


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_is_coco_s(seed):
    draw = np.random.default_rng(seed)
    truths, predicted = [], []
    for _ in range(25):
        corners = draw.integers(0, 80, size=(draw.integers(0, 6), 2))
        boxes = np.concatenate([corners, corners + draw.integers(5, 60, size=corners.shape)], axis=1)
        near = boxes + draw.integers(-6, 7, size=boxes.shape)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        some = near[draw.random(len(near)) < 0.8]
        score = draw.integers(0, 4, size=(len(some), 1)) / 4 if seed % 2 else np.ones((len(some), 1))
        truths.append(boxes.tolist())
        predicted.append(np.concatenate([some, score], axis=1).tolist() * (1 + seed % 3))
    assert average_precision(predicted, truths) == pytest.approx(coco_ap(predicted, truths), abs=1e-12)


def test_no_true_box_is_no_number():
    assert np.isnan(average_precision([[[0, 0, 1, 1, 1.0]]], [[]])).all()
    assert average_precision([[]], [[[0, 0, 1, 1]]]) == (0.0, 0.0)
