"""`dpad-fast score`, each option end to end: the printed or written value can only come from that option."""

import json
import re

import pytest

import dpad_fast as df
from dpad_fast import cli
from dpad_fast.data import reasonseg


class TestScore:
    def test_completions_and_data(self, world, tmp_path, scores, shared):
        folder, samples, path = world
        base = ("--preset", "seg-zero", "--set", "terms=[iou]")
        (right,) = scores(path, "--data", folder, *base)
        assert (right["id"], right["terms"]) == (samples[0].id, {"iou": 1})
        wrong = shared.write(
            tmp_path / "other.jsonl", [(samples[0].id, shared.completion(shared.box_answer((0, 0, 1, 1))))]
        )
        assert scores(wrong, "--data", folder, *base)[0]["terms"] == {"iou": 0}
        moved = tmp_path / "moved"
        moved.mkdir()
        for ending in ("json", "png"):  # the same id with another scene's content
            (moved / f"{samples[0].id}.{ending}").write_bytes((folder / f"{samples[1].id}.{ending}").read_bytes())
        assert scores(path, "--data", moved, *base)[0]["terms"] == {"iou": 0}

    def test_out_makes_its_folder(self, world, tmp_path, run, refused):
        folder, _, path = world
        out = tmp_path / "new" / "deep" / "s.jsonl"
        said = run("score", path, "--data", folder, "--preset", "seg-zero", "--out", out)
        assert said == f"1 scores written to {out}\n"
        assert json.loads(out.read_text())["total"] == 4  # all but the form: seg-zero knows no caption
        (tmp_path / "file").write_text("")
        for place in (tmp_path / "file" / "s.jsonl", tmp_path):  # found before anything is read
            refused("score", "no-such-file", "--data", folder, "--preset", "seg-zero", "--out", place)

    def test_preset_config_and_set(self, world, tmp_path, refused, scores):
        folder, _, path = world
        form = ("--set", "terms=[think_format]")  # seg-zero knows no caption, dpad wants one
        assert [scores(path, "--data", folder, *form, *p)[0]["total"] for p in ((), ("--preset", "seg-zero"))] == [1, 0]
        settings = tmp_path / "r.yaml"
        settings.write_text("preset: seg-zero\nterms: [box_l1]\nweights: {box_l1: 4}\n# \u00e9\n", encoding="utf-8")
        assert scores(path, "--data", folder, "--config", settings)[0]["total"] == 4
        changed = ("--set", "weights={box_l1: 7}", "--set", "box_l1_threshold=0.0")
        assert scores(path, "--data", folder, "--config", settings, *changed[:2])[0]["total"] == 7
        assert scores(path, "--data", folder, "--config", settings, *changed)[0]["total"] == 0
        for text, words in (("a: [", "not valid YAML"), ("- 1", "must map names"), ("", "must map names")):
            settings.write_text(text)
            assert words in refused("score", path, "--data", folder, "--config", settings)

    def test_encoder_and_its_options_reach_load_encoder(self, world, tmp_path, monkeypatch, scores):
        folder, samples, path = world
        calls = []
        real = df.clip.load_encoder

        def record(name, **settings):
            calls.append((name, settings))
            return real("shapes", precision=settings["precision"], cache=settings["cache"])

        monkeypatch.setattr("dpad_fast.clip.load_encoder", record)
        options = ("--backend", "open_clip", "--precision", "float32", "--device", "cuda:7")
        (row,) = scores(path, "--data", folder, "--encoder", "a/b", *options, "--cache", tmp_path / "cache")
        ((name, settings),) = calls
        assert (name, settings["backend"], settings["precision"]) == ("a/b", "open_clip", "float32")
        assert (settings["device"], settings["cache"] is not None) == ("cuda:7", True)
        assert (tmp_path / "cache" / "embeddings.sqlite").is_file()
        scorer = df.RewardScorer(df.RewardConfig.preset("dpad"), real("shapes", precision="float32"))
        expected = scorer.score([row["completion"]], [samples[0].target], [samples[0].image])
        assert row["similarity"]["roi"] == pytest.approx(float(expected.similarity["roi"][0]), abs=1e-6)

    def test_options_of_an_encoder_that_is_not_used_are_named(self, world, capsys):
        folder, _, path = world
        options = ("--encoder", "x", "--device", "cuda", "--backend", "open_clip")
        assert cli.main(["score", str(path), "--data", str(folder), "--preset", "seg-zero", *options]) == 0
        assert "note: --encoder, --backend, --device not used" in capsys.readouterr().err

    def test_json_and_the_summary_row(self, world, tmp_path, run, refused, shared):
        folder, samples, path = world
        shared.write(
            path, [(samples[0].id, shared.completion(shared.box_answer(samples[0].target.box))), (samples[1].id, "?")]
        )
        base = ("score", path, "--data", folder, "--preset", "seg-zero", "--set", "tags=[think, answer, caption]")
        assert re.search(r"mean of 2 .*0\.500 .*2\.500 .*1 with a reason", run(*base))
        found = json.loads(run(*base, "--json", "-"))
        assert (found["n"], found["preset"], found["total"], found["terms"]["iou"]) == (2, "seg-zero", 2.5, 0.5)
        assert found["reasons"] == {"no-tags": 1}
        said = run(*base, "--json", tmp_path / "m" / "m.json")
        assert said.endswith(f"wrote {tmp_path / 'm' / 'm.json'}\n")
        assert json.loads((tmp_path / "m" / "m.json").read_text()) == found
        assert "only one of" in refused(*base, "--json", "-", "--out", "-")

    def test_quiet(self, world, tmp_path, capsys, refused, shared):
        folder, _, path = world
        base = ("score", path, "--data", folder, "--quiet", "--encoder", "shapes")
        photographs = shared.shared_data()
        shared.write(path, [(next(iter(reasonseg.load(photographs))).id, "?")])
        arguments = ["score", path, "--data", photographs, "--quiet", "--encoder", "shapes", "--out", tmp_path / "o"]
        assert cli.main(list(map(str, [*arguments, "--json", tmp_path / "j"]))) == 0
        shown = capsys.readouterr()
        assert (shown.out, shown.err) == ("", "")
        assert len((tmp_path / "o").read_text().splitlines()) == json.loads((tmp_path / "j").read_text())["n"] == 1
        assert "error: " in refused(*base[:2], "--data", tmp_path / "none", "--quiet")
