"""Completions of a policy: in the order of the data, in lines that say their space, gone on with after a kill."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from dpad_fast.data import forms
from dpad_fast.evaluate import completions
from dpad_fast.evaluate.asking import asking_of
from dpad_fast.evaluate.infer import ask_as, infer
from dpad_fast.evaluate.predictions import Predictions
from dpad_fast.train.tiny_policy import write_tiny_policy
from dpad_fast.types import Sample, Target

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    """Small models are no faster on several, and much slower where others compute, too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def scenes(count=5):
    return list(forms.load(f"shapes:7:{count}"))


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path, samples, asking, **more):
    return completions.write_completions(path, lambda: iter(samples), asking, {"data": "d"}, CPU, **more)


def test_lines_are_what_infer_answers_and_what_predictions_read(tmp_path):
    samples, path = scenes(3), tmp_path / "c.jsonl"
    asking = asking_of("policy-e", tokens=20, batch=2)
    assert write(path, samples, asking) == 3
    model, processor = asking.load(CPU)
    expected = infer(
        model, processor, [s.image for s in samples], [s.query for s in samples], batch=2, max_new_tokens=20,
        ask=ask_as("{question}"),
    )  # fmt: skip
    assert [line["completion"] for line in lines_of(path)] == [own[0].answer.text for own in expected]
    read = Predictions(str(path))
    assert list(read.ids) == [sample.id for sample in samples]
    assert read.lines(samples[0].id)[0].model_size == samples[0].image.size
    read.close()


@pytest.mark.parametrize(
    ("name", "size"),
    [("Qwen/Qwen2.5-VL-3B-Instruct", [112, 84]), ("Qwen/Qwen3-VL-4B-Instruct", [1000, 1000])],
)
def test_lines_say_what_their_coordinates_refer_to(tmp_path, name, size):
    write_tiny_policy(tmp_path / "policy", name)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 110, 3), dtype=np.uint8))
    samples = [Sample("a", picture, "q", Target())]
    write(tmp_path / "c.jsonl", samples, asking_of(str(tmp_path / "policy"), tokens=2))
    assert lines_of(tmp_path / "c.jsonl")[0]["model_size"] == size
    write(tmp_path / "d.jsonl", samples, asking_of(str(tmp_path / "policy"), tokens=2, coordinates="norm1"))
    assert lines_of(tmp_path / "d.jsonl")[0]["model_size"] == [1, 1]


def test_a_cut_file_is_gone_on_with_and_has_the_same_bytes(tmp_path, monkeypatch):
    samples, whole, cut = scenes(), tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    asking = asking_of("policy-e", tokens=12, batch=4, samples=2, temperature=1.0)
    assert write(whole, samples, asking) == 10
    assert len({line["completion"] for line in lines_of(whole)}) > 5
    lines = whole.read_bytes().splitlines(keepends=True)
    true_sampling, asked = completions.sample_completions, []

    def counting(model, processor, items, **settings):
        asked.append([item.id for item in items])
        return true_sampling(model, processor, items, **settings)

    monkeypatch.setattr(completions, "sample_completions", counting)
    for kept in (b"".join(lines[:5]), b"".join(lines[:4]) + lines[4][:9], b"".join(lines[:10])):
        cut.write_bytes(kept)
        state = json.loads((tmp_path / "whole.jsonl.settings.json").read_text())
        (tmp_path / "cut.jsonl.settings.json").write_text(json.dumps(state | {"lines": None}))
        told = []
        assert write(cut, samples, asking, progress=told.append) == 10
        assert told[0] in (4, 8)
        assert cut.read_bytes() == whole.read_bytes()
    ids = [sample.id for sample in samples]
    assert asked == [ids[2:4], ids[4:], ids[2:4], ids[4:], ids[4:]]
    asked.clear()
    assert write(cut, samples, asking) == 10
    assert asked == []


def test_a_file_of_other_settings_is_kept_and_named(tmp_path):
    samples, path = scenes(1), tmp_path / "c.jsonl"
    write(path, samples, asking_of("policy-e", tokens=3))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"differs in tokens\)"):
        write(path, samples, asking_of("policy-e", tokens=4))
    write(path, samples, asking_of("policy-e", tokens=3, format="dpad"))  # how they are read later is another matter
    (tmp_path / "c.jsonl.settings.json").unlink()
    with pytest.raises(ValueError, match="is not beside it"):
        write(path, samples, asking_of("policy-e", tokens=3))
    assert path.read_bytes() == before


def test_bad_data_is_named(tmp_path):
    asking = asking_of("policy-e", tokens=2, batch=1)
    twice = scenes(1) * 2
    with pytest.raises(ValueError, match="two samples of the id"):
        write(tmp_path / "a.jsonl", twice, asking)
    with pytest.raises(ValueError, match=r"^a: .*nowhere\.png"):
        write(tmp_path / "b.jsonl", [Sample("a", str(tmp_path / "nowhere.png"), "q", Target())], asking)
