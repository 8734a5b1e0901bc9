"""The authors' reward manager, in stand-ins of their batch and of the loop that their manager is."""

import logging

import numpy as np
import pytest
import torch

import dpad_fast as df
from dpad_fast.integrations.authors import CustomRewardManager
from dpad_fast.testing import rewards as shared
from dpad_fast.testing.faulty_rows import faulty_rows
from dpad_fast.testing.serving import Running

END = 1


class Tokenizer:
    """A stand-in: a token is a character's code, and 1 is the end of the turn."""

    def decode(self, ids, skip_special_tokens):
        return "".join(chr(int(i)) for i in ids if i != END or not skip_special_tokens)


class Item:
    """A stand-in of verl's `DataProtoItem`."""

    def __init__(self, batch, non_tensor_batch):
        self.batch, self.non_tensor_batch = batch, non_tensor_batch


class DataProto:
    """A stand-in of verl 0.1's `DataProto`."""

    def __init__(self, batch, non_tensor_batch):
        self.batch, self.non_tensor_batch = batch, non_tensor_batch

    def __len__(self):
        return len(self.batch["responses"])

    def __getitem__(self, i):
        tensors = {name: tensor[i] for name, tensor in self.batch.items()}
        return Item(tensors, {name: array[i] for name, array in self.non_tensor_batch.items()})


def proto(texts, solutions, images):
    tokens = [[*map(ord, text), END] for text in texts]
    width = max(map(len, tokens)) + 3
    prompts = torch.full((len(texts), 7), ord("?"))
    responses = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in tokens])
    mask = torch.tensor([[0] * 3 + [1] * (4 + len(ids)) + [0] * (width - len(ids)) for ids in tokens])
    columns = {}
    for name, values in (("solution", solutions), ("image", images)):
        columns[name] = np.empty(len(values), object)
        columns[name][:] = values
    return DataProto({"prompts": prompts, "responses": responses, "attention_mask": mask}, columns)


def their_loop(data, tokenizer, score_of):
    """A stand-in of their manager's call (EasyR1's of February 2025): sample by sample."""
    tensor = torch.zeros_like(data.batch["responses"], dtype=torch.float32)
    for i in range(len(data)):
        item = data[i]
        length = item.batch["prompts"].shape[-1]
        valid = item.batch["attention_mask"][length:].sum()
        text = tokenizer.decode(item.batch["responses"][:valid], skip_special_tokens=True)
        tensor[i, valid - 1] = score_of(text, item.non_tensor_batch["solution"], item.non_tensor_batch["image"])
    return tensor


@pytest.fixture(scope="module")
def released():
    return df.ScorerSpec(df.RewardConfig.preset("dpad-released"), encoder="shapes", threads=1).build()


def texts_and_pictures():
    texts = [shared.completion(), "no tags", "", shared.completion((5, 5, 30, 30)), shared.completion(caption="a dog")]
    pictures = [shared.picture(1), shared.picture(2)]
    return texts, [shared.SOLUTION] * 4 + ["nothing"], [pictures[i // 3] for i in range(5)]


def test_what_their_loop_gives_in_one_batch(released, capsys):
    data = proto(*texts_and_pictures())
    calls = []

    class Watched:
        config = released.config

        def score(self, completions, targets, images, *rest, **settings):
            calls.append(images)
            return released.score(completions, targets, images, *rest, **settings)

    found = CustomRewardManager(Tokenizer(), 1, Watched())(data)
    wanted = their_loop(data, Tokenizer(), lambda *row: float(released.score(*([part] for part in row)).total[0]))
    assert torch.equal(found, wanted)
    assert found.dtype == torch.float32
    assert len(set(found.sum(-1).tolist())) > 2
    [images] = calls
    assert len(images) == 5
    assert len(set(map(id, images))) == 2  # equal pictures are told by identity
    assert capsys.readouterr().out.count("[score]") == 1


def test_faults_get_the_lowest_and_are_counted(released, tmp_path, caplog):
    rows = [row for row in faulty_rows(tmp_path) if row.fault != "truth off the picture"]  # which their code crops
    data = proto([row.completion for row in rows], [row.solution for row in rows], [row.picture for row in rows])
    with caplog.at_level(logging.WARNING):
        found = CustomRewardManager(Tokenizer(), 0, released)(data).sum(-1)
    assert found[3] == found[4] == 0
    assert found[0] > 0
    assert "2 of 6 rows cannot be scored (bad-image 2)" in caplog.records[0].getMessage()


def test_settings(released, tmp_path, monkeypatch):
    text = "preset: dpad-released\nencoder: shapes\nthreads: 1\n"
    file = tmp_path / "scorer.yaml"
    file.write_text(text)
    data = proto(*texts_and_pictures())
    wanted = CustomRewardManager(Tokenizer(), 0, released)(data)
    settings = {"preset": "dpad-released", "encoder": "shapes", "threads": 1}
    for given in (settings, str(file)):
        assert torch.equal(CustomRewardManager(Tokenizer(), 0, given)(data), wanted)
    monkeypatch.setenv("DPAD_FAST_SCORER", str(file))
    for given in ("vision_reasoner", None):  # their own names of reward functions
        assert torch.equal(CustomRewardManager(tokenizer=Tokenizer(), num_examine=0, compute_score=given)(data), wanted)
    with pytest.raises(ValueError, match="unknown setting 'encodr'"):
        CustomRewardManager(Tokenizer(), 0, {"encodr": "shapes"})


def test_through_a_server(released):
    data = proto(*texts_and_pictures())
    server = Running("--preset", "dpad-released")
    try:
        found = CustomRewardManager(Tokenizer(), 0, {"url": server.url})(data)
    finally:
        assert server.stop() == 0
    assert torch.equal(found, CustomRewardManager(Tokenizer(), 0, released)(data))
