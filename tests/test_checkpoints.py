"""Finding a checkpoint: the same names lead to the same folder wherever a model can be named."""

import json
import shutil

import pytest
import torch

import dpad_fast as df
from dpad_fast.checkpoints import ENCODERS, POLICIES, checkpoint, is_small_clip, shipped, small_encoder
from dpad_fast.train.config import from_dict
from dpad_fast.train.policy import load_policy
from dpad_fast.train.run import make_encoder


@pytest.mark.parametrize("name", ["shapes", "clip"])
def test_both_names_of_the_small_clip_work_everywhere(name, tmp_path, monkeypatch):
    spec = df.ScorerSpec(config=df.RewardConfig.preset("dpad"), encoder=name, precision="float32")
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()  # a folder of the same name does not go before it
    (tmp_path / name / "config.json").write_text("{}")
    right = df.load_encoder(checkpoint("shapes"), precision="float32").embed_texts(["a red circle"])
    assert float(right.norm()) == pytest.approx(1.0)
    direct = df.load_encoder(name, precision="float32")
    configured = make_encoder(from_dict({"encoder": name}))
    for encoder in (direct, configured, spec.build().encoder):
        torch.testing.assert_close(encoder.embed_texts(["a red circle"]), right, rtol=0, atol=0)
    assert checkpoint(name) == checkpoint("shapes")
    with pytest.raises(ValueError, match=f"encoder '{name}' comes with this package for backend 'transformers'"):
        df.load_encoder(name, backend="open_clip")
    with pytest.raises(ValueError, match=f"policy '{name}' cannot be loaded"):
        load_policy(name)


@pytest.mark.parametrize("name", ["clip", *POLICIES])
def test_a_folder_of_a_shipped_name_is_meant_by_its_path(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shipped(name), tmp_path / name)
    assert checkpoint(name) == shipped(name)
    assert checkpoint(f"./{name}").resolve() == tmp_path / name
    assert shipped(f"./{name}") is None
    assert json.loads((checkpoint(tmp_path / name) / "config.json").read_text())["model_type"] in ("clip", "qwen2_5_vl")


def test_the_small_clip_is_known_by_its_folder_too(tmp_path):
    folder = shipped("clip")
    assert [is_small_clip(name) for name in ("shapes", "clip", folder, f"{folder}/../clip")] == [True] * 4
    shutil.copytree(folder, tmp_path / "clip")
    assert [is_small_clip(name) for name in ("policy-e", tmp_path / "clip", "a\0b", "x" * 5000)] == [False] * 4


def test_the_second_encoder_is_known_by_name_and_folder():
    folder = shipped("shapes-siglip")
    assert [small_encoder(name) for name in ("shapes-siglip", folder, "clip", "policy-e", "a\0b")] == (
        ["shapes-siglip", "shapes-siglip", "shapes", None, None]
    )
    assert ENCODERS == ("shapes", "shapes-siglip")
    assert not is_small_clip(folder)
    found = df.load_encoder("shapes-siglip", precision="float32").embed_texts(["a red plain circle"])
    torch.testing.assert_close(df.load_encoder(folder, precision="float32").embed_texts(["a red plain circle"]), found)
    with pytest.raises(ValueError, match="encoder 'shapes-siglip' comes with this package for backend 'transformers'"):
        df.load_encoder("shapes-siglip", backend="open_clip")
    with pytest.raises(ValueError, match="did you mean 'shapes-siglip'"):
        df.load_encoder("shapes-sigli")


@pytest.mark.parametrize("name", ["no-such-policy", "a\0b", "x" * 5000, ""])
def test_what_is_nowhere_is_named_with_both_places(name):
    with pytest.raises(ValueError, match=r"no config\.json in .*checkpoints.* nor in ") as told:
        checkpoint(name)
    assert repr(name) in str(told.value)
