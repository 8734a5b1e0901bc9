"""The command line: help, mistakes in one line, the configuration of `train`, `evaluate` and `report` from files."""

import json
import subprocess
import sys

import pytest

from dpad_fast import cli


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_help_shows_an_example(name, capsys):
    with pytest.raises(SystemExit) as leaving:
        cli.main([name, "--help"])
    assert leaving.value.code == 0
    shown = capsys.readouterr().out
    assert f"example:\n  dpad-fast {name}" in shown
    assert len(shown.splitlines()) > 5


def test_top_level_help_names_every_command_and_imports_nothing_heavy():
    program = (
        "import sys\nfrom dpad_fast import cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit as leaving:\n    assert leaving.code == 0\n"
        "print('heavy:', [m for m in ('torch', 'transformers', 'trl', 'datasets', 'numpy') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "heavy: []" in shown
    assert all(f"  {name} " in shown for name in cli.COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sing"], ["no such command", "demo, train"]),
        (["--loud"], ["unknown option --loud"]),
        (["train", "no/such.yaml"], ["No such file", "no/such.yaml"]),
        (["report", "no/such.json"], ["No such file", "no/such.json"]),
        (["demo", "--setting", "Q"], ["--setting 'Q' is unknown", "E, F, J, all"]),
        (["demo", "--seeds", "0"], ["--seeds must be at least 1"]),
        (["evaluate", "no/such.jsonl", "--data", "."], ["No such file", "no/such.jsonl"]),
        (["evaluate", "p.jsonl"], ["--data"]),
    ],
)
def test_mistakes_are_one_line_and_status_2(arguments, words, capsys):
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert "Traceback" not in said
    for word in words:
        assert word in said


def test_no_command_prints_help(capsys):
    assert cli.main([]) == 2
    assert "commands:" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit) as leaving:
        cli.main(["--version"])
    assert leaving.value.code == 0
    assert capsys.readouterr().out.startswith("dpad-fast ")


def test_train_print_config_prints_the_configuration(tmp_path, capsys):
    (tmp_path / "a.yaml").write_text("steps: 3\n")
    assert cli.main(["train", str(tmp_path / "a.yaml"), "--print-config", "--set", "grpo.queries=2", "--out", "x"]) == 0
    import yaml

    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["steps"], shown["grpo"]["queries"], shown["out"]) == (3, 2, "x")
    assert cli.main(["train", str(tmp_path / "a.yaml"), "--print-config", "--set", "grpo.querys=2"]) == 2
    assert "did you mean grpo.queries" in capsys.readouterr().err


def test_evaluate_predictions(tmp_path, capsys):
    """A right box, a wrong one, and an answer that cannot be read, against exported scenes."""
    from dpad_fast.data import shapes

    shapes.export_reasonseg(tmp_path / "data", seed=3, count=3)
    answers = []
    for index in range(3):
        item = shapes.sample(3, index)
        x1, y1, x2, y2 = item.target.box
        box = [x1, y1, x2, y2] if index == 0 else [0, 0, 1, 1]
        answer = json.dumps({"bbox": box, "points_1": [x1, y1], "points_2": [x1, y1]})
        text = "?" if index == 2 else f"<think>a b c</think><answer>{answer}</answer><caption>a thing</caption>"
        answers.append({"id": item.id, "completion": text})
    lines = "\n".join(json.dumps(row) for row in answers)
    (tmp_path / "p.jsonl").write_text(lines + "\n")
    out = tmp_path / "numbers.json"
    arguments = ["evaluate", str(tmp_path / "p.jsonl"), "--data", str(tmp_path / "data"), "--segmenter", "box"]
    assert cli.main([*arguments, "--json", str(out)]) == 0
    assert "gIoU" in capsys.readouterr().out
    found = json.loads(out.read_text())
    mask = shapes.sample(3, 0).target.mask
    box = shapes.sample(3, 0).target.box
    expected = mask.sum() / ((box[2] - box[0]) * (box[3] - box[1]))
    assert found["metrics"]["giou"]["value"] == pytest.approx(expected / 3, abs=0.02)
    assert found["metrics"]["format"]["value"] == pytest.approx(2 / 3)
    (tmp_path / "p.jsonl").write_text(lines + '\n{"id": "shapes-3-9", "completion": ""}\n')
    assert cli.main(arguments) == 2
    assert "p.jsonl:4: id 'shapes-3-9' is not in" in capsys.readouterr().err


def _run_of(identifier, **changes):
    """A result of one record after training, and what a hostile hand changed in it."""
    row = {"id": identifier, "text": "x", "intersection": 1, "union": 2, "chain_tokens": 3, "s1": 0.1, "s2": 0.2}
    config = {"name": "n", "evaluation": {"show": 8}}
    parts = {"before": {}, "after": {}, "history": [], "versions": {}, "records": {"after": [{**row, **changes}]}}
    return json.dumps({"kind": "run", "config": config, **parts})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "does not hold a result"),
        ("[" * 100_000, "nested too deeply"),
        ('{"kind": "x"}', "known: run, demo, evaluate"),
        ('{"kind": ["run"]}', "known: run, demo, evaluate"),
        ("{}", "does not hold a result of dpad-fast train, demo or evaluate"),
        ('{"records": {}}', "is of kind None"),
        ('{"records": [7]}', "records[0] is int, expected dict"),
        ('{"kind": "run"}', "config is missing"),
        ('{"kind": "demo"}', "title is missing"),
        ('{"kind": "run", "config": []}', "config is list, expected dict"),
        (_run_of("../../x"), "is not whole: id: '../../x' is not of the form"),
        (_run_of("shapes-../../x-1"), "is not whole"),
        (_run_of("../../x-1"), "is not whole: id: '../../x-1' is not of the form"),
        (_run_of("shapes-\u00b2-0"), "is not whole"),
        (_run_of(None), "is not whole: id: None is not of the form"),
        (_run_of("shapes-1-1", text=7), "is not whole"),
        (_run_of("shapes-1-1", intersection="x"), "is not whole"),
        (_run_of("shapes-1-1", s1="x"), "records.after[0].s1: 'x' is no number"),
        (_run_of("shapes-1-1", terms=[]), "records.after[0].terms: [] is no mapping"),
    ],
)
@pytest.mark.parametrize("command", ["report", "audit"])
def test_report_and_audit_refuse_what_is_no_result(command, text, words, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "result.json").write_text(text)
    assert cli.main([command, str(tmp_path / "in")]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["in", "result.json"]


def test_report_of_a_whole_result_draws_it(tmp_path):
    """The result from which the hostile ones are made is accepted itself."""
    (tmp_path / "result.json").write_text(_run_of("shapes-1-1"))
    assert cli.main(["report", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert '"id":"shapes-1-1"' in page
    assert page.count("data:image/webp;base64,") == 1


@pytest.mark.parametrize("command", ["score", "evaluate"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, ":1 is not valid JSON: nested too deeply"),
        (b'\n{"id": "a", "completion": ' + b"[" * 100_000, ":2 is not valid JSON: nested too deeply"),
        (b'{"id": "a", "completion": "x", "n": ' + b"9" * 5000 + b"}", ":1 is not valid JSON: Exceeds the limit"),
        (b"{", ":1 is not valid JSON: "),
        (b"[]", ':1 must be {"id": text, "completion": text}'),
        (b'{"id": "a"}', ':1 must be {"id": text, "completion": text}'),
        (b'{"id": "a", "completion": "x"}\n\xff', ":2 is not UTF-8 (byte 0xff)"),
        (b"\n \n", " holds no line"),
    ],
)
def test_predictions_that_cannot_be_read(command, content, message, tmp_path, capsys):
    path = tmp_path / "p.jsonl"
    path.write_bytes(content)
    extra = ["--preset", "seg-zero"] if command == "score" else []
    assert cli.main([command, str(path), "--data", str(tmp_path), *extra]) == 2
    assert capsys.readouterr().err.startswith(f"dpad-fast {command}: error: {path}{message}")


@pytest.mark.parametrize("command", ["score", "evaluate"])
def test_only_a_newline_ends_a_line(command, tmp_path, capsys):
    """JSON strings may hold U+2028, U+0085 and the like; a byte order mark and Windows' line ends are no content."""
    from dpad_fast.data import shapes

    shapes.export_reasonseg(tmp_path / "data", seed=3, count=1)
    text = "<think>a\u2028b\u0085c\u2029d</think>"
    raw = json.dumps({"id": "shapes-3-0", "completion": text}, ensure_ascii=False).encode()
    (tmp_path / "p.jsonl").write_bytes(b"\xef\xbb\xbf" + raw + b"\r\n\r\n" + raw + b"\r\n")
    base = [command, str(tmp_path / "p.jsonl"), "--data", str(tmp_path / "data")]
    if command == "score":
        assert cli.main([*base, "--preset", "seg-zero", "--out", "-"]) == 0
        texts = [json.loads(row)["completion"] for row in capsys.readouterr().out.splitlines()]
    else:
        assert cli.main([*base, "--json", "-"]) == 0
        texts = [row["text"] for row in json.loads(capsys.readouterr().out)["records"]]
    assert texts == [text, text]
