"""docs/recipe.md: the commands of the walk run in order and print what it says; the real ones go as far as here."""

import contextlib
import io
import json
import re
import shlex
from pathlib import Path

import pytest

pytest.importorskip("trl")
pytest.importorskip("peft")

from dpad_fast import cli
from dpad_fast.data import reasonseg, refcoco
from dpad_fast.train.config import load

ROOT = Path(__file__).parents[1]
MINI = ROOT.parent / "shared" / "data" / "reasonseg-mini"
PAGE = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
SMALL, REAL = PAGE.split("## For real")
REAL = REAL.split("## What was not run")[0]
pytestmark = [
    pytest.mark.skipif(not MINI.is_dir(), reason="the shared sample data is not beside this checkout"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"),
]


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder that looks like a clone's root, with the samples in it."""
    monkeypatch.chdir(tmp_path)
    for name in ("configs", "examples"):
        Path(name).symlink_to(ROOT / name)
    Path("reasonseg-mini").symlink_to(MINI)


def blocks(text):
    return re.findall(r"```(python)?\n(.*?)```", text, re.DOTALL)


def ran(line):
    """The arguments of a command and what it printed."""
    program, *arguments = shlex.split(line)
    assert program == "dpad-fast"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert cli.main(arguments) == 0, line
    return " ".join(printed.getvalue().split())


def quoted(text):
    """What the page says that a command prints, its holes as patterns."""
    found = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    words = [" ".join(words.split()) for words in found if " " in words]
    return [re.escape(each).replace(r"\.\.\.", ".*") for each in words]


def test_the_walk(clone):
    steps = re.split(r"^\*\*\d\. ", SMALL, flags=re.MULTILINE)
    ((kind, code),) = blocks(steps[0])
    assert kind == "python"
    exec(code, {})  # the page's own text, on purpose
    said = {}
    for number, step in enumerate(steps[1:], 1):
        ((_, commands),) = blocks(step)
        said[number] = " ".join(ran(line) for line in commands.splitlines())
        for pattern in quoted(step):
            assert re.search(pattern, said[number]), (number, pattern, said[number])
    assert len(said) == 7
    assert sum(len(quoted(step)) for step in steps) >= 8
    assert Path("train-set/bad-rows.jsonl").read_text() == ""
    assert Path("run/policy/adapter_config.json").is_file()
    result = json.loads(Path("run/result.json").read_text())
    assert len(result["history"]) == 2
    assert len(result["records"]["before"]) == len(result["records"]["after"]) == 6
    assert ran("dpad-fast train examples/walk-through.yaml").startswith("walk-through")  # nothing is trained anew
    assert json.loads(Path("run/result.json").read_text()) == result
    measured = json.loads(Path("measured.json").read_text())
    assert (measured["n"], measured["missing"], len(measured["protocols"])) == (6, 0, 7)
    lines = Path("measured.json.completions.jsonl").read_text().splitlines()
    assert {json.loads(line)["id"] for line in lines} == {sample.id for sample in reasonseg.load(MINI)}
    for page in ("run/report.html", "measured.html"):
        assert "2011_000003_fire" in Path(page).read_text(encoding="utf-8")
    assert Path("infer-out/2011_000003_fire.png").is_file()
    assert "location none (no-tags)" in said[7]


def test_the_commands_for_real(clone):
    """Data of RefCOCO's form in small stands for the set; what needs weights of true size is parsed and checked."""
    refcoco.write(reasonseg.load(MINI), "refcocog", split_by="umd", images=None)
    Path("refcocog/images").rename("train2014")
    assert Path("refcocog/refs(umd).p").is_file()
    four, before = (commands.splitlines() for _, commands in blocks(REAL))
    assert [shlex.split(line)[1] for line in four] == ["data", "train", "evaluate", "infer"]
    assert "prepared 6 rows" in ran(four[0])
    assert "6 rows" in ran(before[0])
    planned = ran(before[1])
    assert "given 840x840, seen 560x560" in planned
    assert re.search(r"right answer .* iou 1, box_l1 1, point_l1 1", planned)
    assert re.search(r"parameters 3,7\d\d,\d{3},\d{3}, trained \d", planned)
    assert "fits 24 GB" in planned
    for line in [*four[1:], *re.findall(r"`accelerate launch [^`]* -m (dpad_fast train [^`]*)`", REAL)]:
        _, name, *arguments = shlex.split(line)
        args = cli._command_parser(name).parse_args(arguments)
        if name == "train":
            load(args.config, args.settings)
    for path in re.findall(r"`(configs/[\w.-]+)`", PAGE):
        assert (ROOT / path).is_file()
