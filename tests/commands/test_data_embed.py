"""`dpad-fast data embed`: a folder is embedded once, and `score` finds its embeddings."""

import json

import pytest
from PIL import Image

from dpad_fast.cli import main
from dpad_fast.commands._encoder import SHAPES_NOTE
from dpad_fast.data import reasonseg
from dpad_fast.data.shapes import export_reasonseg


def test_embeds_a_folder_that_score_then_reads(tmp_path, capsys):
    folder, cache = tmp_path / "data", tmp_path / "cache"
    assert main(["data", "shapes", "--out", str(folder), "--count", "3"]) == 0
    assert main(["data", "embed", "--data", str(folder), "--cache", str(cache), "--encoder", "shapes"]) == 0
    printed = capsys.readouterr().out
    assert "embedded " in printed
    assert "embeddings.sqlite" in printed
    size = (cache / "embeddings.sqlite").stat().st_size
    sample = next(iter(reasonseg.load(folder)))
    x1, y1, x2, y2 = sample.target.box
    answer = {"bbox": [x1, y1, x2, y2], "points_1": [x1 + 1, y1 + 1], "points_2": [x2 - 1, y2 - 1]}
    text = f"<think>t</think><answer>{json.dumps(answer)}</answer><caption>a red circle</caption>"
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"id": sample.id, "completion": text}))
    command = ["score", str(rows), "--data", str(folder), "--encoder", "shapes", "--out", "-"]
    assert main([*command, "--cache", str(cache)]) == 0
    cached = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (cache / "embeddings.sqlite").stat().st_size == size  # nothing had to be added
    assert main(command) == 0
    plain = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert cached["terms"] == plain["terms"]


@pytest.mark.parametrize("given", [["--data", "x"], ["--cache", "x"]])
def test_says_what_is_missing(given, capsys):
    assert main(["data", "embed", *given]) == 2
    assert "is missing: `dpad-fast data embed` needs" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["shapes", "clip"])
def test_either_name_of_the_built_in_encoder_without_a_bar(name, tmp_path, capsys):
    folder, cache = export_reasonseg(tmp_path / "data", 0, 2), tmp_path / "cache"
    command = ["data", "embed", "--data", str(folder), "--cache", str(cache), "--encoder", name]
    assert main(command) == 0
    told = capsys.readouterr()
    assert told.out.startswith("embedded 4 regions of ")  # of either scene the picture and the target
    assert told.err == ""
    assert main([*command, "--quiet"]) == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "")


def test_photographs_are_noted_and_embedded(tmp_path, capsys):
    folder = export_reasonseg(tmp_path / "data", 0, 1)
    (picture,) = folder.glob("*.png")
    Image.open(picture).resize((200, 112)).save(picture)
    (shapes,) = folder.glob("*.json")
    shapes.write_text(json.dumps(json.loads(shapes.read_text()) | {"imageWidth": 200}))
    command = ["data", "embed", "--data", str(folder), "--cache", str(tmp_path / "cache"), "--encoder", "shapes"]
    assert main(command) == 0
    told = capsys.readouterr()
    assert told.out.startswith("embedded 2 regions of ")
    assert told.err == SHAPES_NOTE + "\n"
    assert main([*command, "--quiet"]) == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "")
