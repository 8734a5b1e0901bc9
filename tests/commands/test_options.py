"""Each option of each command, end to end: the printed or written value can only come from that option."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

import dpad_fast as df
from dpad_fast import cli
from dpad_fast.data import reasonseg, shapes

# What the tests below cover; an option that is added without a test fails the first of them.
COVERED = {
    "score": "completions data out preset config set encoder backend precision device cache json quiet",
    "evaluate": "subject data shapes seed mask ignore missing encoder json quiet",
    "train": "config out settings quiet dry_run",
    "demo": "setting seeds steps scenes out workers policy encoder",
    "report": "result out quiet",
    "data": "world out count seed rebuild data cache cache_bytes encoder backend device threads quiet",
    "bench": "arguments",
    "info": "json",
}


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_option_is_covered(name):
    actions = cli._command_parser(name)._actions
    assert {action.dest for action in actions} - {"help"} == set(COVERED[name].split())


def run(capsys, *arguments):
    """Standard output of a command that does well."""
    assert cli.main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def refused(capsys, *arguments):
    assert cli.main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


def completion(answer, caption="a red circle"):
    return f"<think>t t t</think><answer>{json.dumps(answer)}</answer><caption>{caption}</caption>"


def box_answer(box):
    x1, y1, x2, y2 = box
    return {"bbox": list(box), "points_1": [(x1 + x2) / 2, (y1 + y2) / 2], "points_2": [(x1 + x2) / 2, (y1 + y2) / 2]}


@pytest.fixture
def world(tmp_path):
    """Three exported scenes; answers to the first two: a right box and a wrong one."""
    folder = shapes.export_reasonseg(tmp_path / "data", seed=3, count=3)
    samples = list(reasonseg.load(folder))
    path = tmp_path / "p.jsonl"
    write(path, [(samples[0].id, completion(box_answer(samples[0].target.box)))])
    return folder, samples, path


def write(path, rows):
    path.write_text("".join(json.dumps({"id": name, "completion": text}) + "\n" for name, text in rows))
    return path


def scores(capsys, *arguments):
    return [json.loads(line) for line in run(capsys, "score", *arguments, "--out", "-").splitlines()]


class TestScore:
    def test_completions_and_data(self, world, tmp_path, capsys):
        folder, samples, path = world
        base = ("--preset", "seg-zero", "--set", "terms=[iou]")
        (right,) = scores(capsys, path, "--data", folder, *base)
        assert (right["id"], right["terms"]) == (samples[0].id, {"iou": 1})
        wrong = write(tmp_path / "other.jsonl", [(samples[0].id, completion(box_answer((0, 0, 1, 1))))])
        assert scores(capsys, wrong, "--data", folder, *base)[0]["terms"] == {"iou": 0}
        moved = tmp_path / "moved"
        moved.mkdir()
        for ending in ("json", "png"):  # the same id with another scene's content
            (moved / f"{samples[0].id}.{ending}").write_bytes((folder / f"{samples[1].id}.{ending}").read_bytes())
        assert scores(capsys, path, "--data", moved, *base)[0]["terms"] == {"iou": 0}

    def test_out_makes_its_folder(self, world, tmp_path, capsys):
        folder, _, path = world
        out = tmp_path / "new" / "deep" / "s.jsonl"
        said = run(capsys, "score", path, "--data", folder, "--preset", "seg-zero", "--out", out)
        assert said == f"1 scores written to {out}\n"
        assert json.loads(out.read_text())["total"] == 4  # all but the form: seg-zero knows no caption
        (tmp_path / "file").write_text("")
        for place in (tmp_path / "file" / "s.jsonl", tmp_path):  # found before anything is read
            refused(capsys, "score", "no-such-file", "--data", folder, "--preset", "seg-zero", "--out", place)

    def test_preset_config_and_set(self, world, tmp_path, capsys):
        folder, _, path = world
        form = ("--set", "terms=[think_format]")  # seg-zero knows no caption, dpad wants one
        assert [
            scores(capsys, path, "--data", folder, *form, *p)[0]["total"] for p in ((), ("--preset", "seg-zero"))
        ] == [1, 0]
        settings = tmp_path / "r.yaml"
        settings.write_text("preset: seg-zero\nterms: [box_l1]\nweights: {box_l1: 4}\n# \u00e9\n", encoding="utf-8")
        assert scores(capsys, path, "--data", folder, "--config", settings)[0]["total"] == 4
        changed = ("--set", "weights={box_l1: 7}", "--set", "box_l1_threshold=0.0")
        assert scores(capsys, path, "--data", folder, "--config", settings, *changed[:2])[0]["total"] == 7
        assert scores(capsys, path, "--data", folder, "--config", settings, *changed)[0]["total"] == 0
        for text, words in (("a: [", "not valid YAML"), ("- 1", "must map names"), ("", "must map names")):
            settings.write_text(text)
            assert words in refused(capsys, "score", path, "--data", folder, "--config", settings)

    def test_encoder_and_its_options_reach_load_encoder(self, world, tmp_path, capsys, monkeypatch):
        folder, samples, path = world
        calls = []
        real = df.clip.load_encoder

        def record(name, **settings):
            calls.append((name, settings))
            return real("shapes", precision=settings["precision"], cache=settings["cache"])

        monkeypatch.setattr("dpad_fast.clip.load_encoder", record)
        options = ("--backend", "open_clip", "--precision", "float32", "--device", "cuda:7")
        (row,) = scores(capsys, path, "--data", folder, "--encoder", "a/b", *options, "--cache", tmp_path / "cache")
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

    def test_json_and_the_summary_row(self, world, tmp_path, capsys):
        folder, samples, path = world
        write(path, [(samples[0].id, completion(box_answer(samples[0].target.box))), (samples[1].id, "?")])
        base = ("score", path, "--data", folder, "--preset", "seg-zero", "--set", "tags=[think, answer, caption]")
        assert re.search(r"mean of 2 .*0\.500 .*2\.500 .*1 with a reason", run(capsys, *base))
        found = json.loads(run(capsys, *base, "--json", "-"))
        assert (found["n"], found["preset"], found["total"], found["terms"]["iou"]) == (2, "seg-zero", 2.5, 0.5)
        assert found["reasons"] == {"no-tags": 1}
        said = run(capsys, *base, "--json", tmp_path / "m" / "m.json")
        assert said.endswith(f"wrote {tmp_path / 'm' / 'm.json'}\n")
        assert json.loads((tmp_path / "m" / "m.json").read_text()) == found
        assert "only one of" in refused(capsys, *base, "--json", "-", "--out", "-")

    def test_quiet(self, world, tmp_path, capsys):
        folder, _, path = world
        base = ("score", path, "--data", folder, "--quiet", "--encoder", "shapes")
        photographs = shared_data()
        write(path, [(next(iter(reasonseg.load(photographs))).id, "?")])
        arguments = ["score", path, "--data", photographs, "--quiet", "--encoder", "shapes", "--out", tmp_path / "o"]
        assert cli.main(list(map(str, [*arguments, "--json", tmp_path / "j"]))) == 0
        shown = capsys.readouterr()
        assert (shown.out, shown.err) == ("", "")
        assert len((tmp_path / "o").read_text().splitlines()) == json.loads((tmp_path / "j").read_text())["n"] == 1
        assert "error: " in refused(capsys, *base[:2], "--data", tmp_path / "none", "--quiet")


def shared_data():
    folder = Path(__file__).parents[3] / "shared" / "data" / "reasonseg-mini"
    if not folder.is_dir():
        pytest.skip(f"no {folder.name} beside the repository")
    return folder


def measured(capsys, *arguments):
    found = json.loads(run(capsys, "evaluate", *arguments, "--json", "-"))
    return found, {key: value["value"] for key, value in found["metrics"].items()}


def polygons_as_answers(samples, box=None):
    """The ground truth as answers: its rings as they are in the data, and a box beside them or none."""
    rows = []
    for sample in samples:
        answer = {"polygon": [ring.tolist() for ring in sample.target.polygons]}
        rows.append((sample.id, completion(answer | ({} if box is None else box_answer(box)))))
    return rows


class TestEvaluate:
    @pytest.mark.parametrize("box", [None, (0, 0, 1, 1)])
    def test_true_polygons_are_perfect_whatever_box_stands_beside_them(self, tmp_path, capsys, box):
        folder = shared_data()
        path = write(tmp_path / "p.jsonl", polygons_as_answers(reasonseg.load(folder), box))
        found, values = measured(capsys, path, "--data", folder)
        assert (found["n"], found["missing"], found["format_rate"]) == (6, 0, 1.0)
        assert (values["giou"], values["ciou"]) == (1.0, 1.0)

    def test_mask(self, world, capsys):
        folder, samples, path = world
        write(path, polygons_as_answers(samples[:1], (0, 0, 1, 1)))
        assert measured(capsys, path, "--data", folder, "--mask", "polygon")[1]["giou"] > 0.9
        assert measured(capsys, path, "--data", folder, "--mask", "box")[1]["giou"] == 0
        broken = {"polygon": [[1, 2]], **box_answer(samples[0].target.box)}
        write(path, [(samples[0].id, completion(broken))])
        found, values = measured(capsys, path, "--data", folder)
        assert (values["giou"], found["format_rate"], found["records"][0]["reason"]) == (0, 0, "bad-polygon")
        assert measured(capsys, path, "--data", folder, "--mask", "box")[1]["giou"] > 0.3

    def test_boxes_and_polygons_in_one_file(self, world, capsys):
        folder, samples, path = world
        x1, y1, x2, y2 = samples[0].target.box
        box_iou = samples[0].target.mask.sum() / ((x2 - x1) * (y2 - y1))
        rows = [(samples[0].id, completion(box_answer(samples[0].target.box))), (samples[2].id, "?")]
        write(path, [rows[0], *polygons_as_answers(samples[1:2], (0, 0, 1, 1)), rows[1]])
        found, _ = measured(capsys, path, "--data", folder)
        assert [row["id"] for row in found["records"]] == [sample.id for sample in samples]
        shares = [row["intersection"] / row["union"] for row in found["records"]]
        assert shares[0] == pytest.approx(box_iou)
        assert shares[1:] == [1.0, 0.0]
        assert [row["format_ok"] for row in found["records"]] == [True, True, False]

    def test_subject_reads_standard_input(self, world, capsys, monkeypatch, tmp_path):
        import io

        folder, samples, _ = world
        lines = json.dumps({"id": samples[1].id, "completion": "one two"})
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
        assert measured(capsys, "-", "--data", folder)[0]["records"][0]["id"] == samples[1].id

    def test_ignore(self, tmp_path, capsys):
        folder = tmp_path / "data"
        shapes.export_reasonseg(folder, seed=3, count=1)
        (file,) = folder.glob("*.json")
        content = json.loads(file.read_text())
        ring = [[0, 0], [9, 0], [9, 9], [0, 9]]  # 100 pixels of the corner
        content["shapes"] = [
            {"label": "target", "points": [[50, 50], [59, 50], [59, 59], [50, 59]]},
            {"label": "ignore", "points": ring},
        ]
        file.write_text(json.dumps(content))
        path = write(tmp_path / "p.jsonl", [(file.stem, completion(box_answer((50, 50, 60, 60))))])
        assert measured(capsys, path, "--data", folder, "--ignore", "drop")[1]["giou"] == 1
        assert measured(capsys, path, "--data", folder, "--ignore", "target")[1]["giou"] == 0.5

    def test_missing(self, tmp_path, capsys):
        folder = shared_data()
        samples = list(reasonseg.load(folder))
        path = write(tmp_path / "p.jsonl", polygons_as_answers(samples[:2]))
        found, values = measured(capsys, path, "--data", folder)
        assert (found["n"], found["missing"], values["giou"], values["format"]) == (2, 4, 1.0, 1.0)
        assert "4 of 6 samples have no prediction and are left out" in run(capsys, "evaluate", path, "--data", folder)
        found, values = measured(capsys, path, "--data", folder, "--missing", "count-zero")
        areas = [
            int((s.target.mask if s.target.ignore is None else s.target.mask & ~s.target.ignore).sum()) for s in samples
        ]
        assert (found["n"], found["missing"]) == (6, 4)
        assert values["giou"] == values["format"] == pytest.approx(2 / 6)
        assert values["ciou"] == pytest.approx(sum(areas[:2]) / sum(areas))
        assert values["chain_tokens"] == 3
        assert [row["reason"] for row in found["records"][2:]] == ["missing"] * 4
        assert any("4 of 6 samples have no prediction and count as 0" in note for note in found["notes"])

    def test_a_missing_answer_to_an_empty_target_is_no_hit(self, world, capsys):
        folder, samples, path = world
        file = folder / f"{samples[1].id}.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "shapes": []}))
        (folder / f"{samples[2].id}.json").unlink()
        write(path, polygons_as_answers(samples[:1]))
        assert measured(capsys, path, "--data", folder, "--missing", "count-zero")[1]["giou"] == 0.5

    def test_encoder_and_its_word_of_warning(self, world, tmp_path, capsys):
        folder, samples, path = world
        for name in ("shapes", "clip"):
            found, _ = measured(capsys, path, "--data", folder, "--encoder", name)
            encoder = df.load_encoder("shapes")
            scorer = df.RewardScorer(df.RewardConfig.preset("dpad"), encoder)
            text = found["records"][0]["text"]
            expected = scorer.score([text], [samples[0].target], [samples[0].image]).similarity["roi"][0]
            assert found["records"][0]["s1"] == pytest.approx(float(expected), abs=1e-5)
            assert "s1_wins" in found["metrics"]
        assert measured(capsys, path, "--data", folder)[0]["records"][0]["s1"] is None
        photographs = shared_data()
        write(path, [(next(iter(reasonseg.load(photographs))).id, "?")])
        for command in ("evaluate", "score"):
            arguments = [command, path, "--data", photographs, "--encoder", "shapes"]
            assert cli.main(list(map(str, arguments))) == 0
            assert "On photographs its S1" in capsys.readouterr().err
        write(path, [(samples[0].id, "?")])
        assert cli.main(["score", str(path), "--data", str(folder), "--encoder", "shapes"]) == 0
        assert capsys.readouterr().err == ""

    def test_shapes_seed_subject_and_encoder_reach_the_measurement(self, capsys, monkeypatch):
        from dpad_fast.evaluate.measure import Record

        seen = []

        def record(policy, scorer, config):
            seen.append((policy, config.evaluation.scenes, config.evaluation.seed, config.encoder))
            return [Record("shapes-9-0", "x", 7, 1, 2, True, 0.2, 0.1)]

        monkeypatch.setattr("dpad_fast.evaluate.policies.evaluate_policy", record)
        monkeypatch.setattr("dpad_fast.train.run.make_encoder", lambda config: df.load_encoder("shapes"))
        arguments = ("policy-f", "--shapes", "5", "--seed", "77", "--encoder", "my/clip")
        assert measured(capsys, *arguments)[1]["chain_tokens"] == 7
        assert seen == [("policy-f", 5, 77, "my/clip")]

    @pytest.mark.parametrize(
        "option", [("--data", "x"), ("--mask", "box"), ("--ignore", "drop"), ("--missing", "skip")]
    )
    def test_options_that_a_checkpoint_does_not_look_at(self, option, capsys):
        said = refused(capsys, "evaluate", "policy-e", "--shapes", "8", *option)
        assert f"{option[0]} goes with predictions, not with --shapes" in said

    def test_options_that_predictions_do_not_look_at(self, world, capsys):
        folder, _, path = world
        assert "--seed goes with --shapes" in refused(capsys, "evaluate", path, "--data", folder, "--seed", "3")
        for value in (-1, 1 << 63):
            assert "--seed must be" in refused(capsys, "evaluate", "policy-e", "--shapes", "3", "--seed", value)

    def test_json_and_quiet(self, world, tmp_path, capsys):
        folder, _, path = world
        out = tmp_path / "new" / "n.json"
        said = run(capsys, "evaluate", path, "--data", folder, "--json", out)
        assert said.endswith(f"wrote {out}\n")
        assert run(capsys, "evaluate", path, "--data", folder, "--json", out, "--quiet") == ""
        assert json.loads(out.read_text()) == measured(capsys, path, "--data", folder)[0]

    def test_only_files_that_rows_refer_to_are_read(self, world, capsys):
        folder, samples, path = world
        (folder / f"{samples[1].id}.png").write_bytes(b"no picture")
        (folder / f"{samples[2].id}.json").write_text("{")
        found, _ = measured(capsys, path, "--data", folder)
        assert (found["n"], found["missing"]) == (1, 1)
        assert any("1 files of the data cannot be read" in note for note in found["notes"])
        assert scores(capsys, path, "--data", folder, "--preset", "seg-zero")[0]["total"] == 4
        write(path, [(samples[1].id, "?")])
        for command in ("score", "evaluate"):
            extra = ("--preset", "seg-zero") if command == "score" else ()
            assert f"{samples[1].id}.png" in refused(capsys, command, path, "--data", folder, *extra)
        write(path, [(samples[0].id, "?")])
        assert f"{samples[2].id}.json" in refused(capsys, "evaluate", path, "--data", folder, "--missing", "count-zero")


class TestTrain:
    def test_config_settings_out_and_dry_run(self, tmp_path, capsys):
        (tmp_path / "a.yaml").write_text("steps: 3\nname: mine\n")
        base = ("train", tmp_path / "a.yaml", "--dry-run")
        shown = yaml.safe_load(run(capsys, *base, "--set", "grpo.queries=2", "--set", "seed=5", "--out", "there"))
        assert (shown["steps"], shown["name"], shown["grpo"]["queries"]) == (3, "mine", 2)
        assert (shown["seed"], shown["out"]) == (5, "there")
        assert not (tmp_path / "there").exists()

    def test_what_was_removed_is_told(self, tmp_path, capsys):
        (tmp_path / "a.yaml").write_text("save_model: false\n")
        for arguments in ((), ("--set", "save_model=true")):
            said = refused(capsys, "train", tmp_path / "a.yaml", "--dry-run", *arguments)
            assert "setting save_model is gone" in said
            assert "always kept in out/policy" in said

    def test_quiet_and_the_run(self, tmp_path, capsys, monkeypatch):
        seen = []

        def record(config, tell):
            seen.append((config.steps, config.out, tell is None))
            if tell is not None:
                tell("train", 1, config.steps, {"reward": 2.5})
            return {"after": {}}

        monkeypatch.setattr("dpad_fast.experiment.run_experiment", record)
        (tmp_path / "a.yaml").write_text("steps: 3\n")
        base = ("train", tmp_path / "a.yaml", "--out", tmp_path / "o")
        assert "step 1/3  reward   2.500" in run(capsys, *base)
        assert run(capsys, *base, "--quiet") == ""
        assert seen == [(3, str(tmp_path / "o"), False), (3, str(tmp_path / "o"), True)]


def test_demo_options_reach_the_jobs(tmp_path, capsys, monkeypatch):
    seen = []

    class Stop(ValueError):
        pass

    def record(jobs, watcher, workers):
        seen.append(([(job.label, job.config) for job in jobs], workers))
        if len(seen) == 2:
            raise Stop("stopped here")

    monkeypatch.setattr("dpad_fast.demo.jobs.run_jobs", record)
    monkeypatch.setattr("dpad_fast.demo.outcome.audit_table", lambda setting, before: _Titled())
    options = ("--setting", "F", "--seeds", "3", "--steps", "7", "--scenes", "9", "--out", tmp_path / "o")
    options += ("--workers", "5", "--policy", "my/policy", "--encoder", "my/clip")
    assert cli.main(["demo", *map(str, options)]) == 2
    assert "stopped here" in capsys.readouterr().err
    (first, _), (jobs, workers) = seen
    assert [label for label, _ in first] == ["F warm start"]
    assert (len(jobs), workers) == (6, 5)
    for _, config in jobs:
        assert (config.steps, config.evaluation.scenes) == (7, 9)
        assert (config.policy, config.encoder) == ("my/policy", "my/clip")
        assert config.out.startswith(str(tmp_path / "o" / "F"))
    assert {config.seed for _, config in jobs} == {0, 1, 2}


class _Titled:
    def text(self):
        return "audit"


class TestReport:
    def test_result_out_and_quiet(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr("dpad_fast.evaluate.report.render", lambda result: f"<html>{result['mark']}")
        (tmp_path / "result.json").write_text('{"mark": 41}')
        (tmp_path / "other.json").write_text('{"mark": 42}')
        assert run(capsys, "report", tmp_path) == f"wrote {tmp_path / 'report.html'}\n"
        assert (tmp_path / "report.html").read_text() == "<html>41"
        out = tmp_path / "new" / "x.html"
        assert run(capsys, "report", tmp_path / "other.json", "--out", out, "--quiet") == ""
        assert out.read_text() == "<html>42"


class TestData:
    def test_shapes(self, tmp_path, capsys):
        said = run(capsys, "data", "shapes", "--out", tmp_path / "o", "--count", "2", "--seed", "12")
        assert said == f"wrote 2 scenes in ReasonSeg's format to {tmp_path / 'o'}\n"
        assert sorted(path.stem for path in (tmp_path / "o").glob("*.json")) == ["shapes-12-0", "shapes-12-1"]
        assert run(capsys, "data", "shapes", "--out", tmp_path / "p", "--count", "1", "--quiet") == ""
        for option, value in (("--count", 0), ("--count", 10**30), ("--seed", -1), ("--seed", 10**30)):
            assert f"{option} must be" in refused(capsys, "data", "shapes", option, value)

    def test_rebuild(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr("dpad_fast.train.warm_start.rebuild.rebuild", lambda out: {"made": str(out)})
        said = run(capsys, "data", "shapes", "--rebuild", "--out", tmp_path / "o")
        assert json.loads(said[: said.index("}") + 1]) == {"made": str(tmp_path / "o")}

    def test_embed(self, world, tmp_path, capsys, monkeypatch):
        folder, _, _ = world
        calls = []
        real = df.load_encoder

        def record(name, **settings):
            calls.append((name, settings))
            return real("shapes", cache=settings["cache"])

        monkeypatch.setattr(df, "load_encoder", record)
        base = ("data", "embed", "--data", folder, "--cache", tmp_path / "c", "--cache-bytes", "12345678")
        options = ("--encoder", "a/b", "--backend", "open_clip", "--device", "cuda:3", "--threads", "2")
        assert f"of {folder}: " in run(capsys, *base, *options)
        ((name, settings),) = calls
        assert (name, settings["backend"], settings["device"]) == ("a/b", "open_clip", "cuda:3")
        assert settings["threads"] == 2
        assert (tmp_path / "c" / "embeddings.sqlite").is_file()
        assert run(capsys, *base, *options, "--quiet") == ""
        for option, value in (("--cache-bytes", 0), ("--cache-bytes", 10**30), ("--threads", 0)):
            assert f"{option} must be" in refused(capsys, *base, option, value)

    def test_cache_bytes_reach_the_cache(self, world, tmp_path, capsys, monkeypatch):
        folder, _, _ = world
        seen = []
        from dpad_fast.clip import EmbeddingCache

        def record(**settings):
            seen.append(settings)
            return EmbeddingCache(**settings)

        monkeypatch.setattr("dpad_fast.clip.EmbeddingCache", record)
        arguments = ("--cache", tmp_path / "c", "--cache-bytes", "12345678", "--encoder", "shapes")
        run(capsys, "data", "embed", "--data", folder, *arguments)
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
    def test_options_of_another_world(self, doing, option, capsys):
        said = refused(capsys, "data", *doing, *option)
        assert f"{option[0]} does not go with `dpad-fast data {' '.join(doing)}`" in said


def test_bench_passes_its_arguments_on(capsys, monkeypatch):
    seen = []

    def record(command, **settings):
        seen.append((command, settings["cwd"]))
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(subprocess, "run", record)
    assert cli.main(["bench", "masks", "--quick"]) == 3
    ((command, folder),) = seen
    assert command[1:] == ["-m", "bench.run", "masks", "--quick"]
    assert (folder / "bench" / "run.py").is_file()


def test_info_as_json(tmp_path, capsys):
    found = json.loads(run(capsys, "info", "--json", "-"))
    assert found["dpad-fast"]["version"] == df.__version__
    assert df.__version__ in run(capsys, "info", "--json", tmp_path / "i.json")
    assert json.loads((tmp_path / "i.json").read_text())["packages"] == found["packages"]
