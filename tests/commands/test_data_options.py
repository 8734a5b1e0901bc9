"""`dpad-fast data`, each option end to end: the printed or written value can only come from that option."""

import json

import pytest

import dpad_fast as df


class TestData:
    def test_shapes(self, tmp_path, run, refused):
        said = run("data", "shapes", "--out", tmp_path / "o", "--count", "2", "--seed", "12")
        assert said == f"wrote 2 scenes in ReasonSeg's format to {tmp_path / 'o'}\n"
        assert sorted(path.stem for path in (tmp_path / "o").glob("*.json")) == ["shapes-12-0", "shapes-12-1"]
        assert run("data", "shapes", "--out", tmp_path / "p", "--count", "1", "--quiet") == ""
        for option, value in (("--count", 0), ("--count", 10**30), ("--seed", -1), ("--seed", 10**30)):
            assert f"{option} must be" in refused("data", "shapes", option, value)

    def test_rebuild(self, tmp_path, monkeypatch, run):
        monkeypatch.setattr("dpad_fast.train.warm_start.rebuild.rebuild", lambda out: {"made": str(out)})
        said = run("data", "shapes", "--rebuild", "--out", tmp_path / "o")
        assert json.loads(said[: said.index("}") + 1]) == {"made": str(tmp_path / "o")}

    def test_embed(self, world, tmp_path, monkeypatch, run, refused):
        folder, _, _ = world
        calls = []
        real = df.load_encoder

        def record(name, **settings):
            calls.append((name, settings))
            return real("shapes", cache=settings["cache"])

        monkeypatch.setattr("dpad_fast.clip.load_encoder", record)
        base = ("data", "embed", "--data", folder, "--cache", tmp_path / "c", "--cache-bytes", "12345678")
        options = ("--encoder", "a/b", "--backend", "open_clip", "--device", "cuda:3", "--threads", "2")
        assert f"of {folder}: " in run(*base, *options)
        ((name, settings),) = calls
        assert (name, settings["backend"], settings["device"]) == ("a/b", "open_clip", "cuda:3")
        assert settings["threads"] == 2
        assert (tmp_path / "c" / "embeddings.sqlite").is_file()
        assert run(*base, *options, "--quiet") == ""
        for option, value in (("--cache-bytes", 0), ("--cache-bytes", 10**30), ("--threads", 0)):
            assert f"{option} must be" in refused(*base, option, value)

    def test_cache_bytes_reach_the_cache(self, world, tmp_path, monkeypatch, run):
        folder, _, _ = world
        seen = []
        from dpad_fast.clip import EmbeddingCache

        def record(**settings):
            seen.append(settings)
            return EmbeddingCache(**settings)

        monkeypatch.setattr("dpad_fast.clip.EmbeddingCache", record)
        arguments = ("--cache", tmp_path / "c", "--cache-bytes", "12345678", "--encoder", "shapes")
        run("data", "embed", "--data", folder, *arguments)
        assert seen == [{"folder": str(tmp_path / "c"), "folder_bytes": 12345678}]

    @pytest.mark.parametrize(
        ("doing", "option"),
        [
            (["embed"], ["--out", "x"]),
            (["embed"], ["--count", "3"]),
            (["embed"], ["--seed", "3"]),
            (["embed"], ["--rebuild"]),
            (["shapes"], ["--data", "x"]),
            (["shapes"], ["--cache-bytes", "5"]),
            (["shapes"], ["--threads", "1"]),
            (["shapes", "--rebuild"], ["--count", "3"]),
            (["shapes", "--rebuild"], ["--seed", "3"]),
        ],
    )
    def test_options_of_another_world(self, doing, option, refused):
        said = refused("data", *doing, *option)
        assert f"{option[0]} does not go with `dpad-fast data {' '.join(doing)}`" in said
