"""Libraries that call `pycocotools.mask`, with `dpad_fast.coco_mask` in its place: the same results to the bit.

The cases correspond to those of pycocotools' demos (loading results, evaluating), detectron2
(`tests/data/test_coco_evaluation.py`: settings changed, fields left out), faster_coco_eval
(`test_extensive_pycocotools_comparison.py`, `test_mask_api.py`: annToRLE and annToMask), hotcoco (`test_parity.py`,
`fuzz_dropin.py`), torchmetrics (`test_map.py`: `segm`, masks and lists that are empty), lvis-api (`ann_to_rle`),
torchvision (CocoDetection) and DETR's image processors. The numbers are our own.
"""

import copy
import importlib
import json
import sys
import types

import numpy as np
import pytest

from dpad_fast import coco_mask as ours

theirs = pytest.importorskip("pycocotools.mask")
coco = pytest.importorskip("pycocotools.coco")
cocoeval = pytest.importorskip("pycocotools.cocoeval")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
FUNCTIONS = ("encode", "decode", "iou", "merge", "area", "toBbox", "frPyObjects")


@pytest.fixture
def in_place(monkeypatch):
    """A function that puts `dpad_fast.coco_mask` where libraries look for `pycocotools.mask`."""

    def put():
        monkeypatch.setattr(coco, "maskUtils", ours)
        monkeypatch.setattr(cocoeval, "maskUtils", ours)
        monkeypatch.setattr(sys.modules["pycocotools"], "mask", ours)
        monkeypatch.setitem(sys.modules, "pycocotools.mask", ours)

    return put


def blob(rng, height, width):
    ys, xs = np.mgrid[:height, :width]
    y, x, r = rng.random(3) * (height, width, min(height, width) / 2)
    return np.asfortranarray((ys - y) ** 2 + (xs - x) ** 2 * (0.5 + rng.random()) < r * r, np.uint8)


def counts_of(mask):
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    return [0, *runs] if flat[0] else runs


def dataset(seed=0):
    """Ground truth in every form that a segmentation comes in, and detections near it and far from it."""
    rng = np.random.default_rng(seed)
    sizes = [(60, 80), (128, 65), (33, 47), (20, 300), (90, 90)]
    images = [{"id": i + 1, "height": h, "width": w, "file_name": f"{i}.png"} for i, (h, w) in enumerate(sizes)]
    annotations, results = [], []
    for image in images[:4]:  # the last has neither
        height, width = image["height"], image["width"]
        for k in range(8):
            category, mask = int(rng.integers(1, 4)), blob(rng, height, width)
            rle = theirs.encode(mask)
            if k % 4 == 0:
                parts = rng.integers(1, 4)
                segmentation = [(rng.random(2 * rng.integers(3, 9)) * width).round(2).tolist() for _ in range(parts)]
                rle = theirs.merge(theirs.frPyObjects(segmentation, height, width))
            else:
                text = {"size": rle["size"], "counts": rle["counts"].decode()}
                segmentation = [{"size": rle["size"], "counts": counts_of(mask)}, text, dict(rle)][k % 4 - 1]
            annotations.append({
                "id": len(annotations) + 1, "image_id": image["id"], "category_id": category,
                "area": float(theirs.area(rle)), "bbox": theirs.toBbox(rle).tolist(), "segmentation": segmentation,
                "iscrowd": int(k % 4 == 1),
            })  # fmt: skip
            near = np.asfortranarray(np.roll(theirs.decode(rle), rng.integers(-4, 5), axis=int(rng.integers(2))))
            for found in (near, blob(rng, height, width)):
                score, guess = round(rng.random(), 2), int(rng.choice([category, 1]))
                results.append({"image_id": image["id"], "category_id": guess, "score": score, "segmentation": found})
    results[3]["segmentation"] = np.zeros_like(results[3]["segmentation"])
    for i, result in enumerate(results):
        rle = theirs.encode(result["segmentation"])
        result["segmentation"] = rle if i % 2 else {**rle, "counts": rle["counts"].decode()}
    categories = [{"id": i, "name": str(i)} for i in (1, 2, 3)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}, results


def load(data, results, make=None):
    """Both sides as COCO objects, of copies, since loading and evaluating write to them."""
    truth = (make or coco.COCO)()
    truth.dataset = copy.deepcopy(data)
    truth.createIndex()
    return truth, truth.loadRes(copy.deepcopy(results))


def same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(a, np.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.array_equal(a, b, equal_nan=True)
    else:
        assert a == b


def evaluate(data, results, kind="segm", **settings):
    """All that an evaluation leaves behind: overlaps, what was matched, curves, and the numbers printed."""
    evaluation = cocoeval.COCOeval(*load(data, results), kind)
    for name, value in settings.items():
        setattr(evaluation.params, name, value)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    curves = {name: evaluation.eval[name] for name in ("precision", "recall", "scores")}
    return {"ious": dict(evaluation.ious), "images": evaluation.evalImgs, "curves": curves, "stats": evaluation.stats}


@pytest.mark.parametrize("kind", ["segm", "bbox"])
@pytest.mark.parametrize(
    "settings",
    [
        {}, {"useCats": 0}, {"maxDets": [1, 3, 5]}, {"iouThrs": np.array([0.1, 0.5, 0.75])}, {"catIds": [2]},
        {"imgIds": [2, 5]}, {"areaRng": [[0, 1e10], [0, 300], [300, 900], [900, 1e10]]},
    ],
    ids=str,
)  # fmt: skip
def test_cocoeval(kind, settings, in_place):
    data, results = dataset()
    expected = evaluate(data, results, kind, **settings)
    in_place()
    found = evaluate(data, results, kind, **settings)
    same(found, expected)
    if not settings:
        assert 0.05 < found["stats"][0] < 0.95  # and not because nothing was matched, or everything


@pytest.mark.parametrize("left_out", ["truth", "image's results", "category's results", "bbox", "overlaps"])
def test_cocoeval_of_less(left_out, in_place):
    data, results = dataset(1)
    if left_out == "truth":
        data["annotations"] = []
    elif left_out == "bbox":
        for annotation in data["annotations"]:
            del annotation["bbox"]
    elif left_out == "image's results":
        results = [result for result in results if result["image_id"] != 2]
    elif left_out == "category's results":
        results = [result for result in results if result["category_id"] != 1]
    else:  # one image with a detection that overlaps nothing, and one that is nothing
        results = [result for result in results if result["image_id"] == 3][:2]
        results[0]["segmentation"] = theirs.encode(np.zeros((33, 47), np.uint8, order="F"))
        results[1]["segmentation"] = theirs.frPyObjects([[0, 0, 1, 0, 1, 1, 0, 1]], 33, 47)[0]
    expected = evaluate(data, results)
    in_place()
    same(evaluate(data, results), expected)


def test_loading_and_drawing_annotations(in_place):
    """annToRLE and annToMask of each form, and what loadRes adds to results."""
    data, results = dataset(2)
    boxes = [{**result, "bbox": [3.5, 2, 9, 7.25]} for result in results]
    boxes = [{key: value for key, value in result.items() if key != "segmentation"} for result in boxes]
    rows = np.array([[1, 3, 4, 10, 6.5, 0.5, 2], [4, 0, 0, 300, 20, 0.25, 1]])

    def all_of_it():
        truth, found = load(data, results)
        out = [truth.annToRLE(annotation) for annotation in truth.dataset["annotations"]]
        out += [truth.annToMask(annotation) for annotation in truth.dataset["annotations"]]
        out += found.dataset["annotations"]
        for loaded in (truth.loadRes(copy.deepcopy(boxes)), truth.loadRes(rows)):
            out += loaded.dataset["annotations"]
            out += [loaded.annToMask(annotation) for annotation in loaded.dataset["annotations"]]
        return out

    expected = all_of_it()
    in_place()
    same(all_of_it(), expected)


def test_image_sizes_that_are_floats(in_place):
    data, results = dataset(3)
    for image in data["images"]:
        image["height"], image["width"] = float(image["height"]), float(image["width"])
    expected = evaluate(data, results)
    in_place()
    same(evaluate(data, results), expected)


def test_results_through_a_file(in_place, tmp_path):
    data, results = dataset(4)
    for result in results:
        if isinstance(result["segmentation"]["counts"], bytes):
            result["segmentation"]["counts"] = result["segmentation"]["counts"].decode("ascii")
    data["annotations"] = [a for a in data["annotations"] if not isinstance(a["segmentation"], dict)]
    (tmp_path / "truth.json").write_text(json.dumps(data))
    (tmp_path / "results.json").write_text(json.dumps(results))

    def stats():
        truth = coco.COCO(str(tmp_path / "truth.json"))
        evaluation = cocoeval.COCOeval(truth, truth.loadRes(str(tmp_path / "results.json")), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return evaluation.stats

    expected = stats()
    in_place()
    same(stats(), expected)


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_faster_coco_eval(kind, monkeypatch):
    """It has functions of its own beside pycocotools' seven; those stay."""
    faster = pytest.importorskip("faster_coco_eval")
    data, results = dataset(5)
    calls = []

    def stats():
        truth, found = load(data, results, faster.COCO)
        evaluation = faster.COCOeval_faster(truth, found, kind, print_function=lambda *_: None)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        masks = [truth.annToMask(annotation) for annotation in truth.dataset["annotations"]]
        return [evaluation.stats, dict(evaluation.ious), masks]

    def counted(name):
        return lambda *args: calls.append(name) or getattr(ours, name)(*args)

    expected = stats()
    for module in ("coco", "cocoeval"):
        module = importlib.import_module(f"faster_coco_eval.core.{module}")
        both = {**vars(module.maskUtils), **{name: counted(name) for name in FUNCTIONS}}
        monkeypatch.setattr(module, "maskUtils", types.SimpleNamespace(**both))
    found = stats()
    same(found, expected)
    assert {"iou", "decode"} <= set(calls)
    same(found[0][:12], np.array(evaluate(data, results, kind)["stats"]))


def test_torchvisions_coco_detection(in_place, tmp_path):
    datasets = pytest.importorskip("torchvision.datasets")
    from PIL import Image

    data, _ = dataset(6)
    for annotation in data["annotations"]:
        if isinstance(annotation["segmentation"], dict) and isinstance(annotation["segmentation"]["counts"], bytes):
            annotation["segmentation"]["counts"] = annotation["segmentation"]["counts"].decode()
    for image in data["images"]:
        Image.new("RGB", (image["width"], image["height"])).save(tmp_path / image["file_name"])
    (tmp_path / "truth.json").write_text(json.dumps(data))

    def masks():
        wrapped = datasets.wrap_dataset_for_transforms_v2(
            datasets.CocoDetection(tmp_path, tmp_path / "truth.json"), target_keys=["masks"]
        )
        return [target.get("masks") for _, target in wrapped]

    expected = masks()
    in_place()
    for a, b in zip(masks(), expected, strict=True):
        assert (a is None) == (b is None)
        assert a is None or np.array_equal(a, b)


def test_detrs_masks_of_polygons(in_place):
    detr = pytest.importorskip("transformers.models.detr.image_processing_detr")
    if not hasattr(detr, "convert_coco_poly_to_mask"):
        pytest.skip("this transformers keeps it elsewhere")
    import torch

    polygons = [a["segmentation"] for a in dataset(7)[0]["annotations"] if isinstance(a["segmentation"], list)]
    device = torch.device("cpu")
    expected = detr.convert_coco_poly_to_mask(polygons, 60, 80, device)
    in_place()
    assert torch.equal(detr.convert_coco_poly_to_mask(polygons, 60, 80, device), expected)
    assert expected.any()


def test_peers_evaluate_to_the_same_numbers():
    """hotcoco evaluates in Rust, so its masks cannot be replaced; its numbers can be compared."""
    hotcoco = pytest.importorskip("hotcoco")
    data, results = dataset(8)
    truth = hotcoco.COCO(copy.deepcopy(data))
    evaluation = hotcoco.COCOeval(truth, truth.loadRes(copy.deepcopy(results)), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco, "maskUtils", ours)
        patch.setattr(cocoeval, "maskUtils", ours)
        found = evaluate(data, results)["stats"]
    assert np.allclose(evaluation.stats, found, rtol=0, atol=1e-12)
