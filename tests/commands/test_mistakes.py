"""Mistakes on the command line that once were tracebacks, or were taken in silence for something else."""

import json
import shutil
from pathlib import Path

import pytest

from dpad_fast import cli
from dpad_fast.data.shapes import export_reasonseg

SHIPPED = Path(cli.__file__).parent / "checkpoints"


@pytest.fixture
def given(tmp_path):
    """`score` with a file of one completion and a data folder."""
    folder = export_reasonseg(tmp_path / "data", 0, 1)
    lines = tmp_path / "lines.jsonl"
    lines.write_text(json.dumps({"id": "shapes-0-0", "completion": "x"}) + "\n")
    return ["score", str(lines), "--data", str(folder), "--preset", "seg-zero"]


def cut(name, folder):
    shutil.copytree(SHIPPED / name, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    return str(folder)


def test_weights_that_are_cut_off_are_told_in_one_line(given, tmp_path, capsys):
    given[given.index("seg-zero")] = "dpad"
    clip = cut("clip", tmp_path / "clip")
    assert cli.main([*given, "--encoder", clip]) == 2
    assert f"error: encoder {clip!r} cannot be loaded" in capsys.readouterr().err
    policy = cut("policy-e", tmp_path / "policy")
    assert cli.main(["evaluate", policy, "--shapes", "2"]) == 2
    assert f"error: policy {policy!r} cannot be loaded" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--out", "--json", "--config", "--cache", "--preset", "--encoder"])
def test_an_empty_option_is_refused(given, option, capsys):
    for words in ([option, ""], [f"{option}="]):
        assert cli.main([*given, *words]) == 2
        assert capsys.readouterr().err == f"dpad-fast score: error: {option} is empty\n"


@pytest.mark.parametrize("words", [["data", "shapes", "--out", ""], ["train", "x.yaml", "--out", ""]])
def test_an_empty_folder_is_not_the_current_one(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    assert capsys.readouterr().err == f"dpad-fast {words[0]}: error: --out is empty\n"
    assert list(tmp_path.iterdir()) == []


def test_two_results_in_one_file_are_refused(given, tmp_path, capsys):
    there = tmp_path / "there"
    assert cli.main([*given, "--out", str(there), "--json", str(tmp_path / "data" / ".." / "there")]) == 2
    assert "--out and --json name the same file" in capsys.readouterr().err
    assert not there.exists()


@pytest.mark.parametrize("setting", ["tau=2020-13-45", "terms=5", "terms=true"])
def test_a_setting_of_no_use_is_named(given, setting, capsys):
    assert cli.main([*given, "--set", setting]) == 2
    told = capsys.readouterr().err
    assert setting.partition("=")[0] in told
    assert told.count("\n") == 1


def test_a_long_id_is_shortened(given, tmp_path, capsys):
    (tmp_path / "lines.jsonl").write_text(json.dumps({"id": "x" * 100_000, "completion": "x"}) + "\n")
    assert cli.main(given) == 2
    assert len(capsys.readouterr().err) < 600


def over(kind, path):
    """Another way to write a path."""
    if kind == "link":
        (path.parent / "link").symlink_to(path)
        return str(path.parent / "link")
    if kind == "..":
        (path.parent / "sub").mkdir()
        return f"{path.parent}/sub/../{path.name}"
    return str(path)


def check_spared(path, option, output, command, capsys):
    before = path.read_bytes()
    assert cli.main([*map(str, command), option, output]) == 2
    told = capsys.readouterr()
    assert f"error: {option} {output} would be written over an input, " in told.err
    assert told.err.count("\n") == 1
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["same", "link", ".."])
@pytest.mark.parametrize("option", ["--out", "--json"])
def test_scores_are_not_written_over_the_answers(given, tmp_path, capsys, kind, option):
    lines = tmp_path / "lines.jsonl"
    check_spared(lines, option, over(kind, lines), given, capsys)


@pytest.mark.parametrize("suffix", [".json", ".png"])
def test_scores_are_not_written_over_the_data_or_the_settings(given, tmp_path, capsys, suffix):
    path = tmp_path / "data" / f"shapes-0-0{suffix}"
    check_spared(path, "--out", str(path), given, capsys)
    settings = tmp_path / "settings.yaml"
    settings.write_text("preset: seg-zero\n")
    check_spared(settings, "--json", str(settings), [*given[:-2], "--config", settings], capsys)


@pytest.mark.parametrize("kind", ["same", "link", ".."])
def test_measurements_and_reports_are_not_written_over_what_they_read(given, tmp_path, capsys, kind):
    lines = tmp_path / "lines.jsonl"
    output = over(kind, lines)
    check_spared(lines, "--json", output, ["evaluate", *given[1:4]], capsys)
    lines.write_text('{"kind": "run"}')
    check_spared(lines, "--out", output, ["report", lines], capsys)


def test_a_report_of_its_own_name_is_not_written_over(tmp_path, capsys):
    page = tmp_path / "report.html"
    page.write_text('{"kind": "run"}')
    assert cli.main(["report", str(page)]) == 2
    assert "would be written over an input" in capsys.readouterr().err
    assert page.read_text() == '{"kind": "run"}'


def test_an_output_may_be_written_again(given, tmp_path, capsys):
    for path in (tmp_path / "out.jsonl", tmp_path / "data" / "out.jsonl"):
        for _ in range(2):
            assert cli.main([*given, "--out", str(path), "--quiet"]) == 0


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999", '{"a": [1, NaN]}'])
def test_numbers_that_json_has_not_are_refused_before_they_are_written(given, tmp_path, capsys, value):
    lines, out = tmp_path / "lines.jsonl", tmp_path / "out.jsonl"
    lines.write_text(f'{{"id": "shapes-0-0", "completion": "x", "loss": {value}}}\n')
    assert cli.main([*given, "--out", str(out)]) == 2
    assert f"{lines}:1: field 'loss' holds NaN or an infinite number" in capsys.readouterr().err
    assert not out.exists()
    assert cli.main([*given, "--quiet"]) == 0  # a table does not show the field


@pytest.mark.parametrize("below", ["", "/below", "/below/deeper"])
@pytest.mark.parametrize(
    "words",
    [
        ["infer", "--shapes", "1"],
        ["demo"],
        ["train", "run.yaml"],
        ["data", "shapes"],
        ["data", "shapes", "--rebuild"],
        ["data", "prepare", "data"],
    ],
)
def test_a_file_in_the_place_of_a_folder_is_named(words, below, given, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    Path("run.yaml").write_text("policy: policy-e\n")
    assert cli.main([*words, "--out", f"file{below}"]) == 2
    assert capsys.readouterr().err.endswith("error: Is a file, not a folder: file\n")
    assert Path("file").read_text() == "mine"


@pytest.mark.parametrize(
    "words",
    [
        ["report", "result.json", "--out"],
        ["audit", "result.json", "--json"],
        ["score", "lines.jsonl", "--data", "data", "--preset", "seg-zero", "--out"],
        ["score", "lines.jsonl", "--data", "data", "--preset", "seg-zero", "--json"],
        ["evaluate", "lines.jsonl", "--data", "data", "--json"],
        ["infer", "--shapes", "1", "--json"],
        ["data", "show", "data", "--out"],
        ["data", "check", "data", "--json"],
        ["info", "--json"],
    ],
)
def test_a_folder_in_the_place_of_a_file_is_named(words, given, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("result.json").write_text('{"records": []}')
    Path("folder").mkdir()
    assert cli.main([*words, "folder"]) == 2
    assert capsys.readouterr().err.endswith("error: Is a folder, not a file: folder\n")
    assert list(Path("folder").iterdir()) == []
