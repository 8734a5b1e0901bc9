"""`dpad-fast evaluate` as the ruler: protocols, formats, masks from files, processes and resuming, end to end."""

import contextlib
import json

import numpy as np
import pytest
from PIL import Image

from dpad_fast import cli, coco_mask
from dpad_fast.data import reasonseg

cv2 = pytest.importorskip("cv2")


def found_by(measured, path, folder, *more):
    return measured("--predictions", path, "--data", folder, "--protocol", "all", *more)[0]


@pytest.fixture
def mini(shared):
    folder = shared.shared_data()
    return folder, list(reasonseg.load(folder))


def areas(sample, mask):
    """(intersection, union) when ignored pixels are dropped, target, background."""
    truth, ignore = sample.target.mask, sample.target.ignore
    ignore = np.zeros_like(truth) if ignore is None else ignore
    pairs = ((truth & ~ignore, mask & ~ignore), (truth | ignore, mask), (truth & ~ignore, mask))
    return [(int((a & b).sum()), int((a | b).sum())) for a, b in pairs]


def shifted(sample):
    return np.roll(sample.target.mask, 7, axis=1)


@pytest.mark.parametrize("kind", ["perfect", "empty", "shifted"])
def test_masks_under_each_protocol(mini, tmp_path, measured, kind):
    folder, samples = mini
    make = {"perfect": lambda s: s.target.mask, "empty": lambda s: np.zeros_like(s.target.mask), "shifted": shifted}
    path = tmp_path / "p.jsonl"
    rows = []
    for sample in samples:
        rle = coco_mask.encode(np.asfortranarray(make[kind](sample), dtype=np.uint8))
        mask = {"size": list(map(int, rle["size"])), "counts": rle["counts"].decode()}
        rows.append(json.dumps({"id": sample.id, "mask": mask}))
    path.write_text("\n".join(rows))
    found = found_by(measured, path, folder)["protocols"]
    counted = [areas(sample, make[kind](sample)) for sample in samples]
    for name, column, epsilon, total in (
        ("strict", 0, 0, 0), ("lisa", 0, 1e-5, 1e-10), ("released", 1, 0, 0), ("seg-zero", 1, 0, 0),
        ("lens", 2, 1e-5, 1e-8), ("vision-reasoner", 1, 0, 0), ("gres", 2, 0, 0),
    ):  # fmt: skip
        pairs = [row[column] for row in counted]
        assert found[name]["gIoU"] == pytest.approx(np.mean([i / (u + epsilon) for i, u in pairs]), abs=1e-12)
        assert found[name]["cIoU"] == pytest.approx(
            sum(i for i, _ in pairs) / (sum(u for _, u in pairs) + total), abs=1e-12
        )
        assert (found[name]["n"], found[name]["dropped"]) == (6, 0)
        assert found[name]["P@0.7"] == pytest.approx(np.mean([i / u >= 0.7 for i, u in pairs]))
        differs = sum(row[column] != row[0] for row in counted)
        assert found[name]["differs"] == differs
    if kind == "perfect":
        assert found["strict"]["gIoU"] == found["strict"]["cIoU"] == 1.0


def test_malformed_and_missing_under_each_protocol(mini, tmp_path, measured, shared):
    folder, samples = mini
    rows = shared.polygons_as_answers(samples[:2], (1, 1, 9, 9))
    path = shared.write(tmp_path / "p.jsonl", [*rows[:1], (samples[1].id, "no answer"), (samples[4].id, "{")])
    found = found_by(measured, path, folder, "--missing", "count-zero")
    assert (found["n"], found["missing"], found["unknown"]) == (6, 3, 0)
    empty = [areas(s, np.zeros_like(s.target.mask)) for s in samples]
    strict = found["protocols"]["strict"]
    assert strict["gIoU"] == pytest.approx(1 / 6)
    first = areas(samples[0], samples[0].target.mask)[0]
    assert strict["cIoU"] == pytest.approx(first[0] / (first[1] + sum(row[0][1] for row in empty[1:])))
    box = np.zeros_like(samples[0].target.mask)
    box[1:9, 1:9] = True  # the released reading looks at the box alone
    shared_, union = areas(samples[0], box)[1]
    released = found["protocols"]["released"]
    assert released["gIoU"] == pytest.approx(shared_ / union / 6)
    assert released["cIoU"] == pytest.approx(shared_ / (union + sum(row[1][1] for row in empty[1:])))
    assert found["reasons"] == {"missing": 3, "no-tags": 2}
    assert found["format_rate"] == pytest.approx(1 / 6)


@pytest.mark.filterwarnings("default:.*no pixel is target")
def test_empty_targets(world, measured, shared):
    folder, samples, path = world
    for sample in samples[:2]:
        file = folder / f"{sample.id}.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "shapes": []}))
    answer = "<think>t</think><answer>[]</answer>"
    shared.write(path, [(samples[0].id, answer), (samples[1].id, "?"), (samples[2].id, answer)])
    found = found_by(measured, path, folder, "--format", "vision-reasoner")
    own = found["protocols"]
    assert {name: (own[name]["n"], own[name]["dropped"]) for name in ("strict", "released", "gres")} == {
        "strict": (3, 0), "released": (3, 0), "gres": (3, 0),
    }  # fmt: skip
    assert own["strict"]["gIoU"] == own["gres"]["gIoU"] == own["vision-reasoner"]["gIoU"] == pytest.approx(1 / 3)
    assert own["lisa"]["gIoU"] == pytest.approx(2 / 3)  # there an unreadable answer is an empty mask
    assert found["metrics"]["n_acc"]["value"] == 0.5
    assert found["metrics"]["t_acc"]["value"] == 0.0
    blank = Image.fromarray(np.zeros_like(samples[0].target.mask))
    (folder.parent / "masks").mkdir()
    blank.save(folder.parent / "masks" / f"{samples[0].id}.png")
    found = found_by(measured, folder.parent / "masks", folder)
    assert found["protocols"]["strict"]["gIoU"] == 1
    assert (found["protocols"]["released"]["n"], found["protocols"]["released"]["dropped"]) == (0, 1)


def test_a_picture_s_later_queries(world, measured, shared):
    folder, samples, path = world
    file = folder / f"{samples[0].id}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "text": ["one", "two"]}))
    both = shared.polygons_as_answers(samples[:1]) * 2
    shared.write(path, [(f"{name}-{i}", text) for i, (name, text) in enumerate(both)])
    own = found_by(measured, path, folder)["protocols"]
    assert (own["strict"]["n"], own["lisa"]["n"], own["lisa"]["dropped"], own["lisa"]["differs"]) == (2, 1, 1, 1)


def test_masks_as_files_and_resize(mini, tmp_path, measured, refused):
    folder, samples = mini
    (tmp_path / "masks").mkdir()
    for sample in samples:
        drawn = np.zeros(sample.target.mask.shape, np.uint8)
        for ring in sample.target.polygons:  # OpenCV's own drawing by the data set's rule
            cv2.polylines(drawn, [ring.astype(np.int32)], True, 1, 1)
            cv2.fillPoly(drawn, [ring.astype(np.int32)], 1)
        drawn[np.zeros_like(sample.target.mask) if sample.target.ignore is None else sample.target.ignore] = 0
        Image.fromarray(drawn * 255).save(tmp_path / "masks" / f"{sample.id}.png")
    masks = {s.id: np.asarray(Image.open(tmp_path / "masks" / f"{s.id}.png")) for s in samples}
    assert found_by(measured, tmp_path / "masks", folder)["protocols"]["strict"]["gIoU"] == 1
    np.savez(tmp_path / "m.npz", **masks)
    assert found_by(measured, tmp_path / "m.npz", folder)["protocols"]["lens"]["cIoU"] == pytest.approx(1)
    lines = [json.dumps({"id": s.id, "mask": f"masks/{s.id}.png"}) for s in samples]
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    assert found_by(measured, tmp_path / "p.jsonl", folder)["metrics"]["giou"]["value"] == 1
    large = Image.open(tmp_path / "masks" / f"{samples[0].id}.png")
    large.resize((large.width * 2, large.height * 2), Image.Resampling.NEAREST).save(large.filename)
    said = refused("evaluate", "--predictions", tmp_path / "masks", "--data", folder)
    assert f"the mask of {samples[0].id} is 1000x676, its truth 500x338" in said
    assert found_by(measured, tmp_path / "masks", folder, "--resize")["metrics"]["giou"]["value"] == 1
    own = measured("--predictions", tmp_path / "masks", "--data", folder, "--protocol", "released")[0]["protocols"]
    assert own["released"]["dropped"] == 1


def test_format_and_model_size(world, tmp_path, measured, shared, refused):
    folder, samples, path = world
    x1, y1, x2, y2 = samples[0].target.box
    width, height = samples[0].target.image_size
    perfect = measured("--predictions", path, "--data", folder, "--segmenter", "box")[1]["giou"]
    assert perfect > 0.3

    def giou(text, *options):
        shared.write(path, [(samples[0].id, text)])
        return measured("--predictions", path, "--data", folder, *options)[1]["giou"]

    for model, options in (((840, 840), ()), ((99, 77), ("--model-size", "99x77"))):
        box = [x1 * model[0] / width, y1 * model[1] / height, x2 * model[0] / width, y2 * model[1] / height]
        text = shared.completion(shared.box_answer(box))
        assert giou(text, "--format", "dpad", *options) == perfect
    norm = [x1 * 1000 / width, y1 * 1000 / height, x2 * 1000 / width, y2 * 1000 / height]
    assert giou(json.dumps([{"bbox_2d": norm}]), "--format", "qwen3-vl") == perfect
    assert "--format 'x' is unknown; known: picture, dpad" in refused(
        "evaluate", path, "--data", folder, "--format", "x"
    )
    assert "--model-size must be" in refused("evaluate", path, "--data", folder, "--model-size", "8x")
    both = ("--model-size", "8x8", "--processor", "p")
    assert "give one" in refused("evaluate", path, "--data", folder, *both)


def test_processor(world, tmp_path, measured, shared, monkeypatch):
    transformers = pytest.importorskip("transformers")

    class Qwen2VLImageProcessor:
        patch_size, merge_size, min_pixels, max_pixels = 14, 2, 56 * 56, 28 * 28 * 1280

    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", lambda name: Qwen2VLImageProcessor())
    from dpad_fast.model_size import model_size_for

    folder, samples, path = world
    model = model_size_for(samples[0].target.image_size, Qwen2VLImageProcessor())
    assert model is not None
    width, height = samples[0].target.image_size
    perfect = measured("--predictions", path, "--data", folder, "--segmenter", "box")[1]["giou"]
    x1, y1, x2, y2 = samples[0].target.box
    box = [x1 * model[0] / width, y1 * model[1] / height, x2 * model[0] / width, y2 * model[1] / height]
    text = f"<think>t</think><answer>{json.dumps(box)}</answer>"
    shared.write(path, [(samples[0].id, text)])
    assert measured(path, "--data", folder, "--format", "vlm-r1", "--processor", "p")[1]["giou"] == perfect


def test_unknown_and_form(world, tmp_path, measured, refused, shared, capsys):
    folder, samples, path = world
    shared.write(path, [(samples[0].id, "?"), ("stranger", "?")])
    assert "id 'stranger' is not in" in refused("evaluate", "--predictions", path, "--data", folder)
    found, _ = measured("--predictions", path, "--data", folder, "--unknown", "skip", "--form", "reasonseg")
    assert (found["n"], found["missing"], found["unknown"]) == (1, 2, 1)
    with pytest.raises(SystemExit, match="2"):
        cli.main(["evaluate", "--predictions", str(path), "--data", str(folder), "--form", "nonsense"])
    assert "--form: invalid choice: 'nonsense' (choose from 'reasonseg'" in capsys.readouterr().err
    assert "--predictions FILE is missing" in refused("evaluate", "--data", folder)


def test_tokenizer_and_table(world, run, measured, tmp_path, shared, refused):
    folder, _, path = world
    assert measured(path, "--data", folder)[1]["chain_tokens"] == 3
    said = run("evaluate", path, "--data", folder, "--tokenizer", "words", "--table", "markdown")
    assert "| strict |" in said
    assert "Chain length is in words" in said
    said = run("evaluate", path, "--data", folder, "--protocol", "all", "--table", "latex")
    assert r"\begin{tabular}{lrrrrrrrr}" in said
    assert r"100.0 \%" in said or r"\%" in said
    assert "--tokenizer" in refused("evaluate", path, "--data", folder, "--tokenizer", tmp_path)


def test_compare(mini, tmp_path, measured, run, shared):
    folder, samples = mini
    good = shared.write(tmp_path / "a.jsonl", shared.polygons_as_answers(samples))
    bad = shared.write(tmp_path / "b.jsonl", [(sample.id, "?") for sample in samples[1:]])
    found, _ = measured(good, "--data", folder, "--compare", bad)
    gain = found["comparison"]["differences"]["strict"]["gIoU"]
    assert (found["comparison"]["n"], gain["value"], gain["low"], gain["high"], gain["p"]) == (5, 1, 1, 1, 0)
    run("evaluate", bad, "--data", folder, "--json", tmp_path / "b.json")
    again, _ = measured(good, "--data", folder, "--compare", tmp_path / "b.json")
    assert again["comparison"]["differences"] == found["comparison"]["differences"]


def test_released_output_files(world, tmp_path, measured, run, shared):
    folder, samples, _ = world
    text = shared.completion(shared.box_answer(samples[0].target.box))
    entry = {"image_id": samples[0].id, "ann_id": "0", "query": "q", "think": "t", "intersection": 2, "union": 8}
    path = tmp_path / "output_0.json"
    path.write_text(json.dumps([{**entry, "output_txt": text}]))
    assert measured("--predictions", path, "--data", folder, "--segmenter", "box")[1]["giou"] > 0.3
    path.write_text(json.dumps([entry, {**entry, "intersection": 0, "union": 0}]))
    found = json.loads(run("evaluate", "--predictions", path, "--json", "-"))
    assert found["protocols"]["released"]["gIoU"] == 0.125
    assert found["protocols"]["released"]["cIoU"] == 0.25


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(mini, tmp_path, run, shared, monkeypatch, capsys):
    from dpad_fast.evaluate import chunks, ruler

    monkeypatch.setattr(chunks, "CHUNK", 2)
    monkeypatch.setattr(chunks.chunked, "__defaults__", (2,))
    folder, samples = mini
    path = shared.write(tmp_path / "p.jsonl", shared.polygons_as_answers(samples))
    whole, cut = tmp_path / "whole.json", tmp_path / "cut.json"
    run("evaluate", path, "--data", folder, "--protocol", "all", "--json", whole)
    true_measure, calls = ruler.Ruler.measure, []

    def dying(self, items):
        calls.append(len(items))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return true_measure(self, items)

    monkeypatch.setattr(ruler.Ruler, "measure", dying)
    arguments = ["evaluate", str(path), "--data", str(folder), "--protocol", "all", "--json", str(cut)]
    with contextlib.suppress(KeyboardInterrupt):
        cli.main(arguments)
    side = tmp_path / "cut.json.part"
    with side.open("a") as file:
        file.write('[{"id": "half of a li')  # what a kill in the middle of writing leaves
    capsys.readouterr()
    assert cli.main(arguments) == 0
    assert "going on after 1 chunks" in capsys.readouterr().err
    assert calls == [2, 2, 2, 2]
    assert cut.read_bytes() == whole.read_bytes()
    assert not side.exists()


def test_workers_give_the_same_bytes(mini, tmp_path, run, shared):
    folder, samples = mini
    path = shared.write(tmp_path / "p.jsonl", shared.polygons_as_answers(samples) * 9)
    run("evaluate", path, "--data", folder, "--json", tmp_path / "1.json")
    run("evaluate", path, "--data", folder, "--json", tmp_path / "2.json", "--workers", "2")
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()


def test_a_line_says_what_its_coordinates_refer_to(world, measured, refused):
    folder, samples, path = world
    width, height = samples[0].target.image_size
    perfect = measured(path, "--data", folder, "--segmenter", "box", "--encoder", "shapes")
    assert perfect[1]["giou"] > 0.3

    def found(size, *options):
        x1, y1, x2, y2 = samples[0].target.box
        box = [x1 * size[0] / width, y1 * size[1] / height, x2 * size[0] / width, y2 * size[1] / height]
        answer = {"bbox": box, "points_1": box[:2], "points_2": box[2:]}
        text = f"<think>t t t</think><answer>{json.dumps(answer)}</answer><caption>a red circle</caption>"
        line = {"id": samples[0].id, "completion": text, "model_size": size}
        path.write_text(json.dumps(line))
        return measured(path, "--data", folder, "--segmenter", "box", "--encoder", "shapes", *options)

    for size in ([1000, 1000], [77, 99]):
        same, values = found(size, "--format", "dpad")
        assert values["giou"] == perfect[1]["giou"]
        assert values["s1"] == pytest.approx(perfect[1]["s1"], abs=1e-5)  # S1 looks at the same region
        assert any("coordinates: as each line says" in note for note in same["notes"])
    assert found([77, 99], "--model-size", "700x900")[1]["giou"] < 0.3  # an option goes before the line
    for size in ([0, 5], "8x8", [1], [1.5, 2], {"w": 1}):
        path.write_text(json.dumps({"id": samples[0].id, "completion": "x", "model_size": size}))
        assert f"{path}:1: model_size must be [width, height]" in refused("evaluate", path, "--data", folder)


def test_masks_of_the_other_side_of_a_comparison_are_its_own(mini, tmp_path, measured):
    folder, samples = mini
    np.savez(tmp_path / "good.npz", **{s.id: s.target.mask for s in samples})
    np.savez(tmp_path / "bad.npz", **{s.id: np.zeros_like(s.target.mask) for s in samples})
    found = measured(tmp_path / "good.npz", "--data", folder, "--compare", tmp_path / "bad.npz")[0]
    assert found["comparison"]["differences"]["strict"]["gIoU"]["value"] == 1
    (tmp_path / "other").mkdir()
    for place, scale in ((tmp_path, 255), (tmp_path / "other", 0)):
        for sample in samples:
            Image.fromarray(sample.target.mask.astype(np.uint8) * scale).save(place / f"{sample.id}.png")
        lines = [json.dumps({"id": s.id, "mask": f"{s.id}.png"}) for s in samples]
        (place / "p.jsonl").write_text("\n".join(lines))
    found = measured(tmp_path / "p.jsonl", "--data", folder, "--compare", tmp_path / "other" / "p.jsonl")[0]
    assert found["comparison"]["differences"]["strict"]["gIoU"]["value"] == 1


def test_data_that_changed_is_not_gone_on_with(tmp_path):
    from dpad_fast.commands import _side_file

    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.json").write_text("1")
    before = _side_file.digest(str(tmp_path / "d"))
    assert _side_file.digest(str(tmp_path / "d")) == before
    (tmp_path / "d" / "a.json").write_text("22")
    assert _side_file.digest(str(tmp_path / "d")) != before
    assert _side_file.digest("shapes:1:2") == "shapes:1:2"
