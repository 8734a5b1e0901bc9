"""The HTML report: text of models is escaped, nothing is loaded, tables and curves hold the numbers given."""

import re
from html.parser import HTMLParser

import pytest

from dpad_fast.data import shapes
from dpad_fast.evaluate.drawing import ANSWER, TRUTH, curves_svg, draw_answer
from dpad_fast.evaluate.report import render, write_report
from dpad_fast.evaluate.tables import Table, before_after, compare
from dpad_fast.train.config import TrainConfig

pytest.importorskip("matplotlib")

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&</pre>"
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


class Seen(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = []
        self.attributes = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


def check(page):
    seen = Seen()
    seen.feed(page)
    assert "script" not in seen.tags
    assert "onerror" not in [name for name, _ in seen.attributes]
    assert all(value.startswith("data:image/png;base64,") for name, value in seen.attributes if name == "src")
    assert not [value for name, value in seen.attributes if name == "href" and not value.startswith("#")]
    assert "default-src 'none'" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    return seen


def test_text_of_models_is_escaped_and_nothing_is_loaded(tmp_path):
    result = run_result()
    page = render(result)
    seen = check(page)
    assert seen.tags.count("figure") == 16
    assert seen.tags.count("svg") == 1
    assert write_report(result, tmp_path / "sub" / "r.html").read_text(encoding="utf-8") == page


def test_demo_page():
    run = run_result()
    table = compare("t <b>", {"a": [run], "b": [run_result(tokens=30)]}, ("chain_tokens", "giou"))
    plain = {"title": table.title, "heading": table.heading, "rows": table.rows, "notes": [*table.notes, EVIL]}
    setting = {
        "title": EVIL,
        "preface": [EVIL],
        "tables": [plain],
        "histories": {"a": [run["history"]], "b": [run["history"]]},
        "samples": {"warm start": run["records"]["before"], EVIL: run["records"]["after"]},
        "show": 2,
        "config": run["config"],
    }
    demo = {"kind": "demo", "title": EVIL, "command": EVIL, "preface": [EVIL], "settings": [setting], "versions": {}}
    seen = check(render(demo))
    assert seen.tags.count("figure") == 4


def test_hostile_answers_can_be_drawn():
    for answer in ('{"bbox": [1e308, -1e308, 1e309, 5]}', '{"bbox": [5, 5, 1, 1], "points_1": ["a", null]}', "{}"):
        page = render(run_result(text=f"<think>x</think><answer>{answer}</answer><caption>c</caption>"))
        assert page.count("<figure>") == 16


def test_drawing_marks_truth_and_answer():
    item = shapes.sample(0, 0)
    drawn = draw_answer(item.image, (14, 14, 42, 42), (21, 21, 49, 49), [(30, 30)], scale=2)
    assert drawn.size == (224, 224)
    assert drawn.getpixel((28, 50)) == TRUTH
    assert drawn.getpixel((42, 60)) == ANSWER
    assert drawn.getpixel((60, 60)) == ANSWER
    draw_answer(item.image, None, (1e300, 0, -1e300, 5), [(1e300, -1e300)])


def test_curves():
    history = run_result()["history"]
    drawn = curves_svg({"a": [history], "b": [history, history[:2]]})
    assert drawn.startswith("<svg")
    assert curves_svg({"a": [[]]}) == ""
    assert curves_svg({}) == ""


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


def test_table_text_and_markdown():
    table = Table("T", ("a", "b|c"), (("x", "1"), ("longer", "22")), ("note",))
    lines = table.text().splitlines()
    assert len({len(line) for line in lines[1:6] if set(line) == {"-"}}) == 1
    assert lines[4] == "x         1"
    assert re.search(r"\| a \| b\\\|c \|", table.markdown())
