"""`dpad-fast serve`, each option: what reaches the scorer and the server, and what is refused at once."""

import socket

import pytest

pytest.importorskip("fastapi")

import dpad_fast as df
from dpad_fast import cli
from dpad_fast.serve import server as serving


@pytest.fixture
def started(monkeypatch):
    """A function: options -> the `ScoreServer` and the socket's address that the command would serve with."""
    found = []

    def record(server, listening, ready):
        found.append((server, listening.getsockname()))
        ready("http://here")
        server.close()

    monkeypatch.setattr(serving, "serve", record)

    def started(*options):
        assert cli.main(["serve", "--port", "0", "--encoder", "shapes", *map(str, options)]) == 0
        return found.pop()

    return started


def test_preset_config_and_set(started, tmp_path, capsys):
    server, _ = started("--preset", "dpad", "--set", "shape=margin")
    assert server.config == df.RewardConfig.preset("dpad", shape="margin")
    assert capsys.readouterr().out == "serving dpad on http://here\n"
    (tmp_path / "r.yaml").write_text("preset: dpad\nweights: {iou: 3}\n")
    assert started("--config", tmp_path / "r.yaml", "--quiet")[0].config.weight("iou") == 3
    assert capsys.readouterr().out == ""


def test_encoder_and_its_options_reach_the_spec(monkeypatch, started, tmp_path):
    calls = []
    real = df.ScorerSpec.build

    def record(spec):
        calls.append(spec)
        return real(df.ScorerSpec(spec.config, encoder="shapes"))

    monkeypatch.setattr(df.ScorerSpec, "build", record)
    options = ("--backend", "open_clip", "--precision", "float32", "--device", "cuda:3", "--threads", 2)
    started(*options, "--cache", tmp_path / "cache", "--encoder", "a/b")
    (spec,) = calls
    assert (spec.encoder, spec.backend, spec.precision, spec.device) == ("a/b", "open_clip", "float32", "cuda:3")
    assert (spec.threads, spec.cache) == (2, str(tmp_path / "cache"))


def test_an_encoder_that_is_not_used_is_named(started, capsys):
    server, _ = started("--preset", "seg-zero")
    assert server.scorer.encoder is None
    assert "note: --encoder not used" in capsys.readouterr().err


def test_limits_and_rights_reach_the_server(started, tmp_path):
    (tmp_path / "token").write_text("s3cret-token\n")
    (tmp_path / "token").chmod(0o600)
    numbers = ("--window-ms", 3.5, "--max-batch", 7, "--queue", 9, "--body-mb", 2, "--picture-mb", 1, "--store-mb", 3)
    paths = ("--root", tmp_path, "--token-file", tmp_path / "token")
    settings = started(*numbers, *paths, "--timeout", 4.5)[0].settings
    assert (settings.window_ms, settings.max_batch, settings.queue) == (3.5, 7, 9)
    assert (settings.body, settings.picture, settings.store) == (2 << 20, 1 << 20, 3 << 20)
    assert (settings.token, settings.root, settings.answer_s) == ("s3cret-token", str(tmp_path.resolve()), 4.5)


def test_a_token_in_the_environment(started, monkeypatch, tmp_path):
    monkeypatch.setenv("DPAD_FAST_TOKEN", "in-the-environment")
    server, (host, _) = started("--host", "0.0.0.0")
    assert (host, server.settings.token) == ("0.0.0.0", "in-the-environment")
    (tmp_path / "token").write_text("s3cret-token\n")
    (tmp_path / "token").chmod(0o600)
    assert started("--token-file", tmp_path / "token")[0].settings.token == "s3cret-token"
    monkeypatch.setenv("DPAD_FAST_TOKEN", "")
    assert started()[0].settings.token is None


def test_a_token_that_others_can_read_is_noted(started, tmp_path, capsys):
    (tmp_path / "token").write_text("s3cret-token\n")
    (tmp_path / "token").chmod(0o644)
    started("--token-file", tmp_path / "token")
    assert "others on this machine can read" in capsys.readouterr().err


def test_host_and_port(started, refused):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}" in refused("serve", "--port", port)
    assert "--port must be from 0 to 65535" in refused("serve", "--port", 65536)
    server, (host, port) = started()
    assert (host, port > 0, "localhost" in server.settings.hosts) == ("127.0.0.1", True, True)


def test_other_machines_need_a_token_or_insecure(started, refused, tmp_path):
    words = "--host 0.0.0.0 lets other machines in: give --token-file FILE or set DPAD_FAST_TOKEN, or --insecure"
    assert words in refused("serve", "--host", "0.0.0.0")
    server, (host, _) = started("--host", "0.0.0.0", "--insecure")
    assert (host, server.settings.hosts, server.settings.token) == ("0.0.0.0", (), None)
    (tmp_path / "token").write_text("s3cret-token")
    (tmp_path / "token").chmod(0o600)
    assert started("--host", "0.0.0.0", "--token-file", tmp_path / "token")[0].settings.token == "s3cret-token"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--root", "no-such-folder"), "root is no folder"),
        (("--queue", "0"), "queue must be above 0"),
        (("--max-batch", "-1"), "max_batch must be above 0"),
        (("--set", "shape=round"), "shape must be one of"),
        (("--encoder", "no-such-model"), "no-such-model"),
        (("--token-file", "no-such-file"), "no-such-file"),
    ],
)
def test_mistakes(refused, options, words):
    assert words in refused("serve", "--port", "0", *options)
