"""Scorers from plain settings: what is made of them, what is refused, and the row that goes into a log."""

import inspect
import math
import os

import pytest

import dpad_fast as df
from dpad_fast.integrations import _scorers
from dpad_fast.integrations._scorers import LOG_KEYS, Scorer, log_row, scorer_from, scorer_from_environment
from dpad_fast.testing import rewards as shared

BROKEN = shared.completion(caption="")


def test_a_preset_and_fields_of_the_spec_give_the_spec_s_scores():
    settings = {"preset": "dpad", "encoder": "shapes", "threads": 1, "cache": None}
    texts = [shared.completion(), BROKEN, "no idea"]
    arguments = (texts, [shared.SOLUTION] * 3, [shared.picture()] * 3)
    found = scorer_from(settings).score(*arguments)
    wanted = df.ScorerSpec(df.RewardConfig.preset("dpad"), encoder="shapes", threads=1).build().score(*arguments)
    assert found.total.tolist() == wanted.total.tolist()
    assert len(set(found.total.tolist())) > 1


def test_settings_are_taken_from_hydra_s_containers(tmp_path):
    """Hydra's lists are sequences and no lists, and its dictionaries mappings and no dictionaries."""
    from collections import UserDict, UserList

    config = UserDict({"preset": "seg-zero", "terms": UserList(["iou", "point_l1"]), "weights": UserDict({"iou": 2})})
    scorer = scorer_from(UserDict({"config": config}))
    assert scorer.config.terms == ("iou", "point_l1")
    assert scorer.config.weights == {"iou": 2.0}
    file = tmp_path / "reward.yaml"
    file.write_text("preset: seg-zero\nterms: [iou, point_l1]\nweights: {iou: 2}\n")
    assert scorer_from({"config": str(file)}).config == scorer.config


def test_a_url_gives_the_client_of_a_server(tmp_path):
    file = tmp_path / "token"
    file.write_text("secret-token\n")
    for settings in ({"token": "secret-token"}, {"token_file": str(file)}):
        remote = scorer_from({"url": ["http://127.0.0.1:1", "http://127.0.0.1:2"], "retry_s": 0.0, **settings})
        assert isinstance(remote, df.RemoteScorer)
        urls, token = remote.__reduce__()[1][0]
        assert (urls, token) == (["http://127.0.0.1:1", "http://127.0.0.1:2"], "secret-token")
        with pytest.raises(ConnectionError):
            _ = remote.config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encodr": "x"}, r"unknown scorer setting 'encodr'; did you mean 'encoder'\? Known settings: url, token"),
        ({7: "x"}, r"unknown scorer setting '7'\. Known settings"),
        ({"url": "http://127.0.0.1:1", "encoder": "shapes"}, "'encoder' goes with no url"),
        ({"preset": "seg-zero", "token": "abc"}, "'token' is of a server, but url is missing"),
        ({"preset": "dpad", "config": {"preset": "dpad"}}, "config or preset, not both"),
        ({"config": 5}, "config must map reward settings"),
        ({"preset": "dpda"}, "unknown preset 'dpda'"),
        ({"config": {"tersm": []}}, "unknown reward setting 'tersm'"),
        ({"preset": "dpad"}, "encoder is missing"),
        ({"preset": "seg-zero", "threads": 0}, "threads must be a whole number"),
        ({"url": "http://127.0.0.1:1", "token": "a", "token_file": "b"}, "token or token_file, not both"),
        ("preset: dpad", "must map names to values, got str"),
    ],
)
def test_what_is_no_setting_is_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        scorer_from(settings)


def test_every_kind_of_scorer_is_a_scorer():
    for kind in (df.RewardScorer, df.RemoteScorer):
        assert inspect.signature(kind.score) == inspect.signature(Scorer.score)


def test_the_environment_names_a_file_that_is_read_once(tmp_path, monkeypatch):
    file = tmp_path / "scorer.yaml"
    file.write_text("preset: seg-zero\n")
    monkeypatch.setenv("DPAD_FAST_SCORER", str(file))
    first = scorer_from_environment()
    assert first.config.name == "seg-zero"
    assert scorer_from_environment() is first
    file.write_text("preset: vision-reasoner\n")
    os.utime(file, ns=(1, 1))
    assert scorer_from_environment().config.name == "vision-reasoner"
    monkeypatch.setattr(_scorers.os, "getpid", lambda: -1)
    assert scorer_from_environment() is not first


def test_a_bad_environment_names_the_variable_and_the_file(tmp_path, monkeypatch):
    monkeypatch.delenv("MINE", raising=False)
    with pytest.raises(ValueError, match="MINE is not set: let it name a YAML file"):
        scorer_from_environment("MINE")
    file = tmp_path / "scorer.yaml"
    monkeypatch.setenv("MINE", str(file))
    with pytest.raises(FileNotFoundError):
        scorer_from_environment("MINE")
    for text, message in (
        ("presett: dpad", "unknown scorer setting 'presett'"),
        ("a: [", "is not valid YAML"),
        ("- a", "must map names of settings to values, got list"),
        ("", "must map names of settings to values, got NoneType"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=message) as raised:
            scorer_from_environment("MINE")
        assert str(file) in str(raised.value)


def test_a_row_for_logs_has_the_same_keys_whatever_happened():
    scorer = scorer_from({"encoder": "shapes"})
    texts = [shared.completion(), "no idea", shared.completion()]
    batch = scorer.score(texts, [shared.SOLUTION] * 3, [shared.picture()] * 2 + [b"no picture"], on_error="row")
    rows = [log_row(batch, i) for i in range(3)]
    assert [list(row) for row in rows] == [[*("total", *scorer.config.terms), *LOG_KEYS[1:]]] * 3
    assert rows[0]["total"] == float(batch.total[0])
    assert rows[0]["s1"] == float(batch.similarity["roi"][0])
    assert [row["malformed"] for row in rows] == [0.0, 1.0, 0.0]
    assert [row["unscored"] for row in rows] == [0.0, 0.0, 1.0]
    assert (rows[1]["reason"], rows[2]["reason"]) == ("no-tags", "bad-image")
    assert math.isnan(rows[2]["total"])
    assert rows[2]["error"].startswith("images[2]")
    for i in (-1, 3):
        with pytest.raises(ValueError, match="from 0 to 2"):
            log_row(batch, i)
