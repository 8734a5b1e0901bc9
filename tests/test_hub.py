"""Names that lead nowhere: refused without asking a hub, or within seconds of asking one that gives no answer."""

import socket
import time

import huggingface_hub
import pytest
from huggingface_hub import constants

import dpad_fast as df
from dpad_fast import hub
from dpad_fast.train.policy import load_policy


def unasked(*args, **settings):
    raise AssertionError("a hub was asked")


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (
            lambda: df.load_encoder("shapse"),
            r"encoder 'shapse' .*no shipped name \(shapes, shapes-siglip\); did you mean 'shapes'",
        ),
        (lambda: df.load_encoder("./no/such/folder"), "no such folder"),
        (lambda: df.load_encoder("a/b/c"), "no such folder"),
        (
            lambda: load_policy("policy-g"),
            r"policy 'policy-g' .*\(policy-e, policy-f, policy-j\); did you mean 'policy-",
        ),
        (
            lambda: load_policy("nothing-like-it"),
            r"no shipped name \(policy-e, policy-f, policy-j\); a name on the hub",
        ),
    ],
)
def test_no_hub_is_asked_for_what_cannot_be_there(load, message, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_session", unasked)
    with pytest.raises(ValueError, match=message) as told:
        load()
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "load",
    [
        lambda: df.load_encoder("nobody/no-such-clip"),
        lambda: df.load_encoder("hf-hub:nobody/no-such-clip", backend="open_clip"),
        lambda: load_policy("nobody/no-such-policy"),
    ],
)
def test_a_hub_that_says_nothing_costs_seconds(load, monkeypatch):
    if "open_clip" in str(load.__code__.co_consts):
        pytest.importorskip("open_clip")
    with socket.socket() as silent:  # takes the connection and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "PATIENCE", 0.3)
        with pytest.raises(ValueError, match=r"not in the local Hugging Face cache, and http://127.0.0.1:\d+ ") as told:
            load()
    assert "\n" not in str(told.value)


def test_a_name_server_that_hangs_is_not_waited_for(monkeypatch):
    class Hanging:
        def head(self, url, timeout):
            time.sleep(2 * timeout)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_session", Hanging)
    monkeypatch.setattr(hub, "PATIENCE", 0.2)
    with pytest.raises(ValueError, match="does not answer within"):
        hub.only_local("nobody/nothing", ())


def test_what_is_cached_or_reachable_goes_on(monkeypatch, tmp_path):
    class Answering:
        def head(self, url, timeout):
            return url

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_session", Answering)
    assert hub.only_local("nobody/nothing", ()) is False  # the hub says itself what it does not hold
    assert hub.only_local(str(tmp_path), ()) is True
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set"):
        hub.only_local("nobody/nothing", ())
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda name, file: f"/cache/{file}")
    assert hub.only_local("nobody/nothing", ()) is True


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "device 'gpu' is none that torch knows"),
        ("cuda:99", "device 'cuda:99' is not there: torch finds .* CUDA device"),
        ("xla", "device 'xla' is not there: torch has no xla at work here"),
        ("ipu", "device 'ipu' is not there: torch has no ipu at work here"),
        ("hpu", "device 'hpu' is not there: torch has no hpu at work here"),
        ("mtia", "device 'mtia' is not there: torch has no mtia at work here"),
        ("meta", "device 'meta' holds no numbers"),
    ],
)
def test_devices_are_told_as_devices(device, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        df.load_encoder("shapes", device=device)


def test_the_built_in_encoder_is_of_one_backend():
    with pytest.raises(ValueError, match="encoder 'shapes' comes with this package for backend 'transformers'"):
        df.load_encoder("shapes", backend="open_clip")
