"""Commands run in this process, and a small data folder with answers."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from dpad_fast import cli
from dpad_fast.data import reasonseg, shapes


@pytest.fixture
def run(capsys):
    """A function: arguments -> standard output of a command that does well."""

    def run(*arguments):
        assert cli.main([str(argument) for argument in arguments]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(capsys):
    """A function: arguments -> the one line on standard error of a command that is refused."""

    def refused(*arguments):
        assert cli.main([str(argument) for argument in arguments]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("\n") == 1
        return said.err

    return refused


@pytest.fixture
def scores(run):
    """A function: arguments of `score` -> its rows."""
    return lambda *arguments: [json.loads(line) for line in run("score", *arguments, "--out", "-").splitlines()]


@pytest.fixture
def measured(run):
    """A function: arguments of `evaluate` -> its JSON, and the metrics' values."""

    def measured(*arguments):
        found = json.loads(run("evaluate", *arguments, "--json", "-"))
        return found, {key: value["value"] for key, value in found["metrics"].items()}

    return measured


@pytest.fixture
def world(tmp_path):
    """Three exported scenes; answers to the first two: a right box and a wrong one."""
    folder = shapes.export_reasonseg(tmp_path / "data", seed=3, count=3)
    samples = list(reasonseg.load(folder))
    path = tmp_path / "p.jsonl"
    write(path, [(samples[0].id, completion(box_answer(samples[0].target.box)))])
    return folder, samples, path


def completion(answer, caption="a red circle"):
    return f"<think>t t t</think><answer>{json.dumps(answer)}</answer><caption>{caption}</caption>"


def box_answer(box):
    x1, y1, x2, y2 = box
    return {"bbox": list(box), "points_1": [(x1 + x2) / 2, (y1 + y2) / 2], "points_2": [(x1 + x2) / 2, (y1 + y2) / 2]}


def write(path, rows):
    path.write_text("".join(json.dumps({"id": name, "completion": text}) + "\n" for name, text in rows))
    return path


def polygons_as_answers(samples, box=None):
    """The ground truth as answers: its rings as they are in the data, and a box beside them or none."""
    rows = []
    for sample in samples:
        answer = {"polygon": [ring.tolist() for ring in sample.target.polygons]}
        rows.append((sample.id, completion(answer | ({} if box is None else box_answer(box)))))
    return rows


def shared_data():
    folder = Path(__file__).parents[3] / "shared" / "data" / "reasonseg-mini"
    if not folder.is_dir():
        pytest.skip(f"no {folder.name} beside the repository")
    return folder


@pytest.fixture
def shared():
    """The functions above."""
    functions = (completion, box_answer, polygons_as_answers, write, shared_data)
    return SimpleNamespace(**{function.__name__: function for function in functions})
