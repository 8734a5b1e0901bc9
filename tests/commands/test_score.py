"""`dpad-fast score`: what it prints and writes, its configuration, and rows that are refused by line."""

import argparse
import json
from pathlib import Path

import pytest

import dpad_fast as df
from dpad_fast.commands import score
from dpad_fast.testing import rewards as shared

ROOT = Path(__file__).parents[2]


def run(*arguments):
    parser = argparse.ArgumentParser()
    score.add_arguments(parser)
    return score.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def data(tmp_path):
    """A ReasonSeg folder of one picture, and completions for it."""
    folder = tmp_path / "data"
    folder.mkdir()
    shared.picture().save(folder / "a.jpg")
    square = [[20, 12], [63, 12], [63, 51], [20, 51]]
    shapes = [{"label": "target", "shape_type": "polygon", "points": square, "image_name": "a.jpg"}]
    (folder / "a.json").write_text(json.dumps({"text": ["Which one?"], "is_sentence": True, "shapes": shapes}))
    lines = [{"id": "a", "completion": shared.completion()}, {"id": "a", "completion": "<b>[/x]"}]
    path = tmp_path / "completions.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    return path, folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    from transformers import CLIPProcessor

    folder = tmp_path_factory.mktemp("clip")
    model, processor = shared.tiny_clip()
    model.save_pretrained(folder)
    CLIPProcessor(image_processor=processor.image_processor, tokenizer=processor.tokenizer).save_pretrained(folder)
    return folder


def test_jsonl_holds_every_term(data, saved, tmp_path, capsys):
    out = tmp_path / "scores.jsonl"
    assert run(data[0], "--data", data[1], "--encoder", saved, "--out", out, "--precision", "float32") == 0
    first, second = map(json.loads, out.read_text().splitlines())
    assert first["terms"]["iou"] == first["terms"]["think_format"] == 1
    assert isinstance(first["similarity"]["roi"], float)
    wins = first["similarity"]["roi"] > first["similarity"]["aoi"]
    assert first["reason"] == (None if wins else "not-discriminative")
    assert (second["total"], second["reason"], second["similarity"]["roi"]) == (0, "no-tags", None)
    assert "2 scores written" in capsys.readouterr().out


def test_table_and_overrides(data, capsys):
    args = ("--preset", "seg-zero", "--set", "tags=[think, answer, caption]", "--set", "weights={iou: 3}")
    assert run(data[0], "--data", data[1], *args) == 0
    shown = capsys.readouterr().out
    assert "box_l1" in shown
    assert "no-tags" in shown
    assert "│     7 │" in shown  # 3 + 4 terms of 1


def test_configuration_file(data, tmp_path, capsys):
    path = tmp_path / "reward.yaml"
    path.write_text("preset: seg-zero\nterms: [iou]\n")
    assert run(data[0], "--data", data[1], "--config", path, "--out", "-") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0]["terms"] == {"iou": 1}


@pytest.mark.parametrize(
    ("line", "arguments", "message"),
    [
        ("{", (), "completions.jsonl:1 is not valid JSON"),
        ('{"id": 1, "completion": "x"}', (), "completions.jsonl:1: id '1' is not in"),
        ('{"id": true, "completion": "x"}', (), "completions.jsonl:1 must be .* got True as id"),
        ('{"id": "a", "mask": "m.png"}', (), "completions.jsonl:1 must be"),
        ("", (), "holds no line"),
        ('{"id": "b", "completion": "x"}', (), r"completions.jsonl:1: id 'b' is not in .*which holds a"),
        (None, ("--set", "shpe=margin"), "unknown reward setting 'shpe'; did you mean 'shape'"),
        (None, ("--set", "shape"), "--set takes KEY=VALUE"),
        (None, ("--preset", "nothing"), "unknown preset"),
        (None, ("--encoder", "./no/such/folder"), "--encoder"),
    ],
)
def test_mistakes_are_named(data, line, arguments, message):
    path, folder = data
    if line is not None:
        path.write_text(line)
    with pytest.raises(ValueError, match=message):
        run(path, "--data", folder, *arguments)


def test_example_on_real_photographs(saved, capsys):
    folder = ROOT.parent / "shared" / "data" / "reasonseg-mini"
    if not folder.is_dir():
        pytest.skip(f"no {folder.name} beside the repository")
    assert run(ROOT / "examples" / "completions.jsonl", "--data", folder, "--encoder", saved, "--out", "-") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    known = {sample.id for sample in df.data.reasonseg.load(folder)}
    assert {row["id"] for row in rows} == known
    good = rows[::3]  # the first completion of each sample is the good one
    assert all(row["terms"][name] == 1 for row in good for name in ("answer_format", "iou", "box_l1", "point_l1"))
    reasons = {row["reason"] for row in rows}
    malformed = {"no-tags", "non-finite", "bad-box", "empty-caption", "missing-field", "too-long"}
    assert malformed <= reasons <= malformed | {None, "wrong-place", "not-discriminative"}
    assert all((row["reason"] is None) == all(row["terms"].values()) for row in rows)
