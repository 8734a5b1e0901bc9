"""The HTML report: text of models is data or escaped, nothing is loaded; it holds what was given."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from dpad_fast import coco_mask
from dpad_fast.data import reasonseg, shapes
from dpad_fast.evaluate.drawing import thumbnail
from dpad_fast.evaluate.gallery import THUMB, THUMB_OF_MANY, gallery
from dpad_fast.evaluate.lookup import Lookup, decode_mask
from dpad_fast.evaluate.report import Options, render, write_report
from dpad_fast.evaluate.results import read_sources, series_of
from dpad_fast.evaluate.tables import before_after, compare
from dpad_fast.train.config import EvaluationConfig, HeldOutConfig, TrainConfig

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&</pre>\u2028\ud800"
NUMBER = {"value": 0.5, "error": 0.1, "units": 8}


def run_result(seed=0, tokens=20, text=EVIL):
    items = [shapes.sample(9000, index) for index in range(8)]
    rows = [
        {
            "id": item.id,
            "text": f"{text} {index}",
            "chain_tokens": tokens + index % 3,
            "intersection": 50 + index,
            "union": 100,
            "format_ok": True,
            "s1": 0.3,
            "s2": 0.2,
            "reason": EVIL,
            "right": True,
            "focused": True,
            "names": "target",
        }
        for index, item in enumerate(items)
    ]
    keys = ("chain_tokens", "giou", "ciou", "s1_wins", "format", "right", "focused")
    numbers = {key: NUMBER for key in keys} | {"chain_tokens": {"value": float(tokens), "error": 1.0, "units": 8}}
    history = [{"step": i, "completions/mean_length": 40.0 - i, "dpad/s1_over_s2": 0.1 * i} for i in range(1, 6)]
    config = TrainConfig(name=f"run {EVIL}", seed=seed).as_dict()
    return {
        "kind": "run",
        "config": config,
        "before": numbers,
        "after": numbers,
        "records": {"before": rows, "after": rows},
        "history": history,
        "seconds": {"this_call": 1.0},
        "versions": {"torch": EVIL},
    }


def demo_result():
    run = run_result()
    table = compare("t <b>", {"a": [run], "b": [run_result(tokens=30)]}, ("chain_tokens", "giou"))
    plain = {"title": table.title, "heading": table.heading, "rows": table.rows, "notes": [*table.notes, EVIL]}
    setting = {
        "key": "E",
        "title": EVIL,
        "preface": [EVIL],
        "tables": [plain],
        "histories": {"a": [run["history"]], "b": [run["history"]]},
        "samples": {"warm start": run["records"]["before"][:2], EVIL: run["records"]["after"][:2]},
        "show": 2,
        "config": run["config"],
    }
    return {"kind": "demo", "title": EVIL, "command": EVIL, "preface": [EVIL], "settings": [setting], "versions": {}}


def rle(mask):
    found = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(found["size"]), "counts": found["counts"].decode()}


def record(item, **changes):
    """One of evaluate's, of a sample of ReasonSeg."""
    target = item.target
    truth = {"box": list(target.box), "points": None, "mask": rle(target.mask)}
    return {
        "id": item.id,
        "query": item.query,
        "image": item.image,
        "text": f"<think>hm</think><answer>x</answer> {EVIL}",
        "chain": "hm",
        "caption": None,
        "box": [1.0, 2.0, 30.0, 40.0],
        "points": [[3, 4], [5, 6]],
        "s1": None,
        "s2": None,
        "terms": {"think_format": 1.0, "answer_format": 0.0},
        "reason": "no-json",
        "truth": truth,
        "prediction": rle(target.mask),
        "intersection": 1,
        "union": 4,
        "iou": 0.25,
        **changes,
    }


class Seen(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.texts, self._open = [], [], {}, ("", None)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self._open = (tag, dict(attrs).get("id"))

    def handle_endtag(self, tag):
        self._open = ("", None)

    def handle_data(self, data):
        self.texts[self._open] = self.texts.get(self._open, "") + data


def check(page):
    """What holds for every page; what the parser saw, and the page's data."""
    seen = Seen()
    seen.feed(page)
    names = {name for name, _ in seen.attributes}
    assert not [name for name in names if name.startswith("on") or name == "style"]
    assert "src" not in names
    assert "href" not in names
    assert "img" not in seen.tags
    scripts = {key: text for key, text in seen.texts.items() if key[0] == "script"}
    code = scripts.pop(("script", None))
    assert seen.tags.count("script") == len(scripts) + 1
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page).group(1)
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy
    for kind, text in (("script", code), ("style", seen.texts["style", None])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "Leon Sorokin" in code  # the licence of what is pasted in
    blocks = {key[1]: json.loads(text) for key, text in scripts.items()}
    data = blocks.pop("data")
    data["pictures"] = [picture for block in blocks.values() for picture in block]
    return seen, data


def test_a_run_is_data_and_nothing_is_loaded(tmp_path):
    result = run_result()
    page = render([("result.json", result)])
    seen, data = check(page)
    assert [one["moment"] for one in data["series"]] == ["before", "after"]
    assert [[len(answers) for answers in column] for column in data["answers"]] == [[1] * 8] * 2
    answer = data["answers"][1][3][0]
    assert answer["text"] == f"{EVIL} 3"
    assert (answer["iou"], answer["s1"], answer["s2"], answer["tokens"]) == (0.53, 0.3, 0.2, 20)
    assert data["samples"][3]["query"] == shapes.sample(9000, 3).query
    assert data["samples"][3]["boxes"] == [list(shapes.sample(9000, 3).target.box)]
    assert all(picture.startswith("data:image/webp;base64,") for picture in data["pictures"])
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert seen.tags.count("table") == 2  # before and after, and the keys
    written = write_report([("result.json", result)], tmp_path / "sub" / "r.html")
    assert written.read_text(encoding="utf-8") == page


def test_every_term_has_its_reason():
    x1, y1, x2, y2 = shapes.sample(9000, 0).target.box
    answer = json.dumps({"bbox": [x1, y1, x2, y2], "points_1": [0, 0], "points_2": [0, 0]})
    text = f"<think>a</think><answer>{answer}</answer><caption>c</caption>"
    result = run_result()
    for moment in ("before", "after"):
        result["records"][moment] = [
            dict(result["records"][moment][0], text=text, s1=0.1, s2=0.4, reason="wrong-place")
        ]
    _, data = check(render([("r", result)]))
    assert data["answers"][0][0][0]["terms"] == {
        "think_format": [1, None],
        "answer_format": [1, None],
        "iou": [1, None],
        "box_l1": [1, None],
        "point_l1": [0, "wrong-place"],
        "discriminative": [0, "not-discriminative"],
    }
    broken = run_result(text="?")
    _, data = check(render([("r", broken)]))
    assert {value[0] for value in data["answers"][0][0][0]["terms"].values()} == {0}
    assert data["answers"][0][0][0]["terms"]["iou"][1] == EVIL  # the completion's own, where it is about its text


def test_runs_side_by_side_have_names_of_their_own():
    _, data = check(render([("a", run_result()), ("b", run_result(tokens=30))]))
    names = [one["name"] for one in data["series"]]
    assert len(set(names)) == 4
    assert names[2].endswith("(2), before")
    assert len(data["curves"]) == 1
    assert [line["arm"] for line in data["curves"][0][0]["lines"]] == [0, 1]


def test_demo_page():
    page = render([("result.json", demo_result())])
    seen, data = check(page)
    assert [one["name"] for one in data["series"]] == ["warm start", EVIL]
    assert len(data["samples"]) == 2
    assert [panel["title"] for panel in data["curves"][0]] == ["tokens per completion", "rate of S1 > S2"]
    assert ("caption", None) in seen.texts
    assert "standard error over held-out scenes" in page
    two = demo_result()
    two["settings"].append(dict(two["settings"][0], key="F"))
    _, data = check(render([("result.json", two)]))
    assert [one["name"] for one in data["series"]] == ["E: warm start", f"E: {EVIL}", "F: warm start", f"F: {EVIL}"]
    assert len(data["curves"]) == 2


@pytest.fixture
def photographs(tmp_path):
    """Two samples on pictures of their own, the second large."""
    folder = shapes.export_reasonseg(tmp_path / "data", seed=3, count=2)
    return list(reasonseg.load(folder))


def test_evaluate_records_hold_box_masks_and_the_picture(photographs, tmp_path):
    rows = [record(item) for item in photographs]
    content = {
        "n": 2,
        "missing": 0,
        "protocols": {"strict": {"gIoU": 0.0, "n": 2}},
        "metrics": {"s1": NUMBER},
        "records": rows,
    }
    page = render([("theirs.json", content)])
    _, data = check(page)
    sample, answer = data["samples"][0], data["answers"][0][0][0]
    target = photographs[0].target
    assert data["series"][0]["name"] == "theirs"
    assert (sample["boxes"], sample["size"]) == ([list(target.box)], list(target.image_size))
    np.testing.assert_array_equal(decode_mask(sample["mask"]), target.mask)
    np.testing.assert_array_equal(decode_mask(answer["mask"]), target.mask)
    assert (answer["boxes"], answer["points"]) == ([[1, 2, 30, 40]], [[3, 4], [5, 6]])
    assert answer["terms"] == {"think_format": [1, None], "answer_format": [0, "no-json"]}  # others' own terms
    assert "<th scope='col'>protocol</th><th scope='col'>gIoU</th><th scope='col'>samples</th>" in page
    assert "<tr><td>strict</td><td>0.000</td><td>2</td></tr>" in page
    both = render([("theirs.json", content), ("other.json", {**content, "protocols": {"lisa": {"gIoU": 0.5}}})])
    assert "<td>strict, theirs</td><td>0.000</td><td>2</td>" in both
    assert "<td>lisa, other</td><td>0.500</td><td>-</td>" in both
    assert "<td>S1</td><td>0.500 ± 0.100</td>" in page


def test_answers_of_several_objects(photographs):
    """Their boxes have a confidence; without records' own boxes they are read from the text."""
    several = record(photographs[0], boxes=[[1, 2, 30, 40, 0.5], [5, 5, 9, 9, 0.25], "x"])
    _, data = check(render([("x.json", {"records": [several]})]))
    assert data["answers"][0][0][0]["boxes"] == [[1, 2, 30, 40], [5, 5, 9, 9]]
    result = run_result(text="<think>t</think><answer>[]</answer>")
    objects = [{"bbox_2d": [1, 2, 30, 40], "point_2d": [3, 4]}, {"bbox_2d": [5, 5, 9, 9], "point_2d": [6, 6]}]
    result["config"] = TrainConfig(
        rewards={"preset": "vision-reasoner"}, evaluation=EvaluationConfig(data=HeldOutConfig(path="gone.jsonl"))
    ).as_dict()
    for rows in result["records"].values():
        rows[0] = {**rows[0], "text": f"<think>t</think><answer>{json.dumps(objects)}</answer>"}
    _, data = check(render([("r", result)]))
    answer = data["answers"][0][0][0]
    assert (answer["boxes"], answer["points"]) == ([[1, 2, 30, 40], [5, 5, 9, 9]], [[3, 4], [6, 6]])


def test_pictures_that_are_not_there_are_said(photographs):
    rows = [record(photographs[0], image="gone.jpg"), record(photographs[1], id="b", truth=None, image=None)]
    lookup = Lookup()
    page = render([("x.json", {"records": rows})], Options(lookup))
    _, data = check(page)
    assert data["pictures"] == [None, None]
    assert lookup.notes == [f"{photographs[0].id}: picture 'gone.jpg' is not there"]
    assert "gone.jpg" in page
    assert data["samples"][1]["query"] == photographs[1].query


def test_data_fills_what_records_do_not_say(photographs, tmp_path):
    bare = [{"id": item.id, "text": "x", "intersection": 1, "union": 2} for item in photographs]
    _, data = check(render([("x.json", {"records": bare})], Options(Lookup(str(tmp_path / "data")))))
    assert [sample["query"] for sample in data["samples"]] == [item.query for item in photographs]
    assert data["samples"][0]["mask"]["size"] == list(photographs[0].target.mask.shape)
    assert None not in data["pictures"]


def test_thumbnails_and_limit(photographs, tmp_path):
    rows = [record(item) for item in photographs]
    _, data = check(render([("x.json", {"records": rows})], Options(thumb=0, limit=1)))
    assert (len(data["samples"]), data["pictures"]) == (1, [None])
    large = Image.new("RGB", (600, 300), (10, 200, 30))
    large.save(tmp_path / "l.jpg")
    size, uri = thumbnail(str(tmp_path / "l.jpg"), 100)
    with Image.open(tmp_path / "l.jpg") as _, Image.open(_decoded(uri)) as small:
        assert (size, small.size) == ((600, 300), (100, 50))
        assert np.abs(np.asarray(small).astype(int) - [10, 200, 30]).max() < 8
    turned = Image.new("RGB", (600, 300))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "t.jpg", exif=exif)
    size, uri = thumbnail(str(tmp_path / "t.jpg"), 100)
    with Image.open(_decoded(uri)) as small:
        assert (size, small.size) == ((300, 600), (50, 100))
    sources = read_sources([("x", {"records": [{"id": f"shapes-0-{i}", "text": ""} for i in range(3)]})])
    assert _side(gallery(list(series_of(sources)), Lookup(), None)["pictures"][0]) == min(THUMB, shapes.SIDE)
    assert THUMB_OF_MANY < THUMB


def _decoded(uri):
    import io

    return io.BytesIO(base64.b64decode(uri.partition(",")[2]))


def _side(uri):
    with Image.open(_decoded(uri)) as small:
        return max(small.size)


def test_hostile_answers_can_be_drawn():
    for answer in ('{"bbox": [1e308, -1e308, 1e309, 5]}', '{"bbox": [5, 5, 1, 1], "points_1": ["a", null]}', "{}"):
        page = render([("r", run_result(text=f"<think>x</think><answer>{answer}</answer><caption>c</caption>"))])
        _, data = check(page)
        assert sum(len(answers) for answers in data["answers"][0]) == 8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"text": 7}, r"records\[0\].text: 7 is no text"),
        ({"union": "x"}, r"records\[0\].union: 'x' is no number"),
        ({"iou": float("nan")}, r"records\[0\].iou: nan is no number"),
        ({"id": None}, r"records\[0\].id: None is no text"),
        ({"terms": []}, r"records\[0\].terms: \[\] is no mapping"),
        ({"truth": {"mask": {"size": [2, 2], "counts": "\x00"}}}, "b: truth: "),
        ({"prediction": {"size": [2, 2]}}, "b: prediction: mask must be"),
    ],
)
def test_records_that_are_no_records_are_refused(changes, words):
    row = {"id": "b", "text": "x", "intersection": 1, "union": 2, **changes}
    with pytest.raises(ValueError, match=words):
        render([("x.json", {"records": [row]})])


def test_tables_say_what_is_beyond_noise():
    long, short = run_result(tokens=30), run_result(tokens=20)
    for row, n in zip(short["records"]["after"], range(8), strict=True):
        row["chain_tokens"] += n % 2
    table = compare("t", {"long": [long], "short": [short]}, ("chain_tokens", "giou", "ciou"))
    verdicts = {row[0]: row[-1] for row in table.rows}
    assert verdicts == {"chain tokens": "beyond noise", "gIoU": "within noise", "cIoU": "within noise"}
    assert "one seed" in table.notes[0]
    seeds = compare("t", {"long": [long, run_result(1, 31)], "short": [short, run_result(1, 21)]}, ("chain_tokens",))
    assert "standard error over 2 seeds" in seeds.notes[0]
    assert seeds.rows[0][4].startswith("-10.0")
    assert before_after(long, "x").rows[0][-1] == "within noise"


def test_many_results_have_a_short_title_and_lines_of_their_own_names():
    runs = [run_result() for _ in range(20)]
    for number, run in enumerate(runs):
        run["config"]["name"] = f"lr, seed {number}"
    page = render([(f"r{number}", run) for number, run in enumerate(runs)])
    _, data = check(page)
    assert "<title>Training runs lr, seed 0, lr, seed 1, lr, seed 2, lr, seed 3 and 16 more</title>" in page
    assert [line["of"] for line in data["curves"][0][0]["lines"]] == [f"lr, seed {number}" for number in range(20)]


def test_measurements_have_labels_and_units(photographs):
    metrics = {
        "giou": NUMBER, "p50": NUMBER, "t_acc": NUMBER, "format": NUMBER, "format_tolerant": 0.25, "chain_tokens": 3.0,
    }  # fmt: skip
    content = {"n": 2, "missing": 1, "format_rate": 0.5, "protocols": {"lisa": {"gIoU": 0.5, "dropped": 1}},
               "metrics": metrics, "box_ap": {"AP50": 0.75}, "records": [record(photographs[0])]}  # fmt: skip
    page = render([("x.json", content)])
    for label, value in (
        ("samples", "2"), ("samples without an answer", "1"), ("gIoU, lisa", "0.500 ± 0.100"),
        ("P@0.5, lisa", "0.500 ± 0.100"),
        ("T-acc", "50.0 ± 10.0 %"), ("format, strict", "50.0 ± 10.0 %"), ("format, tolerant", "25.0 %"),
        ("chain length", "3.000"), ("box AP50", "0.750"),
    ):  # fmt: skip
        assert f"<td>{label}</td><td>{value}</td>" in page, label
    assert "<th scope='col'>samples dropped</th>" in page
