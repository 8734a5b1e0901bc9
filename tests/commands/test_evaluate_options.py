"""`dpad-fast evaluate`, each option end to end: the printed or written value can only come from that option."""

import json

import pytest

import dpad_fast as df
from dpad_fast import cli
from dpad_fast.data import reasonseg, shapes


class TestEvaluate:
    @pytest.mark.parametrize("box", [None, (0, 0, 1, 1)])
    def test_true_polygons_are_perfect_whatever_box_stands_beside_them(self, tmp_path, box, measured, shared):
        folder = shared.shared_data()
        path = shared.write(tmp_path / "p.jsonl", shared.polygons_as_answers(reasonseg.load(folder), box))
        found, values = measured(path, "--data", folder)
        assert (found["n"], found["missing"], found["format_rate"]) == (6, 0, 1.0)
        assert (values["giou"], values["ciou"]) == (1.0, 1.0)

    def test_segmenter(self, world, measured, shared):
        folder, samples, path = world
        shared.write(path, shared.polygons_as_answers(samples[:1], (0, 0, 1, 1)))
        assert measured(path, "--data", folder, "--segmenter", "polygon")[1]["giou"] > 0.9
        assert measured(path, "--data", folder, "--segmenter", "box")[1]["giou"] == 0
        broken = {"polygon": [[1, 2]], **shared.box_answer(samples[0].target.box)}
        shared.write(path, [(samples[0].id, shared.completion(broken))])
        found, values = measured(path, "--data", folder)
        assert (values["giou"], found["format_rate"], found["records"][0]["reason"]) == (0, 0, "bad-polygon")
        assert measured(path, "--data", folder, "--segmenter", "box")[1]["giou"] > 0.3

    def test_boxes_and_polygons_in_one_file(self, world, measured, shared):
        folder, samples, path = world
        x1, y1, x2, y2 = samples[0].target.box
        box_iou = samples[0].target.mask.sum() / ((x2 - x1) * (y2 - y1))
        rows = [(samples[0].id, shared.completion(shared.box_answer(samples[0].target.box))), (samples[2].id, "?")]
        shared.write(path, [rows[0], *shared.polygons_as_answers(samples[1:2], (0, 0, 1, 1)), rows[1]])
        found, _ = measured(path, "--data", folder)
        assert [row["id"] for row in found["records"]] == [sample.id for sample in samples]
        shares = [row["intersection"] / row["union"] for row in found["records"]]
        assert shares[0] == pytest.approx(box_iou)
        assert shares[1:] == [1.0, 0.0]
        assert [row["format_ok"] for row in found["records"]] == [True, True, False]

    def test_subject_reads_standard_input(self, world, monkeypatch, tmp_path, measured):
        import io

        folder, samples, _ = world
        lines = json.dumps({"id": samples[1].id, "completion": "one two"})
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
        assert measured("-", "--data", folder)[0]["records"][0]["id"] == samples[1].id

    def test_protocol(self, tmp_path, measured, shared):
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
        path = shared.write(tmp_path / "p.jsonl", [(file.stem, shared.completion(shared.box_answer((50, 50, 60, 60))))])
        assert measured(path, "--data", folder, "--protocol", "strict")[1]["giou"] == 1
        assert measured(path, "--data", folder, "--protocol", "vision-reasoner")[1]["giou"] == 0.5

    def test_missing(self, tmp_path, run, measured, shared):
        folder = shared.shared_data()
        samples = list(reasonseg.load(folder))
        path = shared.write(tmp_path / "p.jsonl", shared.polygons_as_answers(samples[:2]))
        found, values = measured(path, "--data", folder)
        assert (found["n"], found["missing"], values["giou"], values["format"]) == (2, 4, 1.0, 1.0)
        assert "4 of 6 samples have no prediction and are left out" in run("evaluate", path, "--data", folder)
        found, values = measured(path, "--data", folder, "--missing", "count-zero")
        areas = [
            int((s.target.mask if s.target.ignore is None else s.target.mask & ~s.target.ignore).sum()) for s in samples
        ]
        assert (found["n"], found["missing"]) == (6, 4)
        assert values["giou"] == values["format"] == pytest.approx(2 / 6)
        assert values["ciou"] == pytest.approx(sum(areas[:2]) / sum(areas))
        assert values["chain_tokens"] == 3
        assert [row["reason"] for row in found["records"][2:]] == ["missing"] * 4
        assert any("4 of 6 samples have no prediction and count as 0" in note for note in found["notes"])

    @pytest.mark.filterwarnings("default:.*no pixel is target")
    def test_a_missing_answer_to_an_empty_target_is_no_hit(self, world, capsys, shared):
        folder, samples, path = world
        file = folder / f"{samples[1].id}.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "shapes": []}))
        (folder / f"{samples[2].id}.json").unlink()
        shared.write(path, shared.polygons_as_answers(samples[:1]))
        arguments = ("evaluate", path, "--data", folder, "--missing", "count-zero", "--json", "-")
        assert cli.main([str(argument) for argument in arguments]) == 0
        printed = capsys.readouterr()
        assert json.loads(printed.out)["metrics"]["giou"]["value"] == 0.5
        # A warning of a library is a line of the command, not Python's two.
        told = f"{file}: no pixel is target (it labels none), so it has neither box nor points"
        assert printed.err == f"dpad-fast evaluate: warning: {told}\n"

    def test_encoder_and_its_word_of_warning(self, world, tmp_path, capsys, measured, shared):
        folder, samples, path = world
        for name in ("shapes", "clip"):
            found, _ = measured(path, "--data", folder, "--encoder", name)
            encoder = df.load_encoder("shapes")
            scorer = df.RewardScorer(df.RewardConfig.preset("dpad"), encoder)
            text = found["records"][0]["text"]
            expected = scorer.score([text], [samples[0].target], [samples[0].image]).similarity["roi"][0]
            assert found["records"][0]["s1"] == pytest.approx(float(expected), abs=1e-5)
            assert "s1_wins" in found["metrics"]
        assert measured(path, "--data", folder)[0]["records"][0]["s1"] is None
        photographs = shared.shared_data()
        shared.write(path, [(next(iter(reasonseg.load(photographs))).id, "?")])
        for command in ("evaluate", "score"):
            arguments = [command, path, "--data", photographs, "--encoder", "shapes"]
            assert cli.main(list(map(str, arguments))) == 0
            assert "On photographs its S1" in capsys.readouterr().err
        shared.write(path, [(samples[0].id, "?")])
        assert cli.main(["score", str(path), "--data", str(folder), "--encoder", "shapes"]) == 0
        assert capsys.readouterr().err == ""

    def test_shapes_seed_subject_and_encoder_reach_the_measurement(self, monkeypatch, measured):
        from dpad_fast.evaluate.measure import Record

        seen = []

        def record(policy, scorer, config):
            seen.append((policy, config.evaluation.scenes, config.evaluation.seed, config.encoder))
            return [Record("shapes-9-0", "x", 7, 1, 2, True, 0.2, 0.1)]

        monkeypatch.setattr("dpad_fast.evaluate.policies.evaluate_policy", record)
        monkeypatch.setattr("dpad_fast.train.run.make_encoder", lambda config: df.load_encoder("shapes"))
        arguments = ("policy-f", "--shapes", "5", "--seed", "77", "--encoder", "my/clip")
        assert measured(*arguments)[1]["chain_tokens"] == 7
        assert seen == [("policy-f", 5, 77, "my/clip")]

    @pytest.mark.parametrize(
        ("option", "kinds"),
        [
            (("--data", "x"), "predictions or --policy"),
            (("--segmenter", "box"), "predictions or --policy"),
            (("--protocol", "all"), "predictions or --policy"),
            (("--missing", "skip"), "predictions"),
            (("--workers", 2), "predictions or --policy"),
            (("--samples", 2), "--policy"),
        ],
    )
    def test_options_that_a_checkpoint_does_not_look_at(self, option, kinds, refused):
        said = refused("evaluate", "policy-e", "--shapes", "8", *option)
        assert f"{option[0]} goes with {kinds}, not with --shapes" in said

    def test_options_that_predictions_do_not_look_at(self, world, refused):
        folder, _, path = world
        assert "--seed goes with --shapes" in refused("evaluate", path, "--data", folder, "--seed", "3")
        for value in (-1, 1 << 63):
            assert "--seed must be" in refused("evaluate", "policy-e", "--shapes", "3", "--seed", value)

    def test_a_seed_of_the_training_world_is_told_by_its_option(self, refused):
        said = refused("evaluate", "policy-e", "--shapes", "2", "--seed", "1")
        assert said == "dpad-fast evaluate: error: --seed 1 is the world that policies are trained on; give another\n"

    def test_json_and_quiet(self, world, tmp_path, run, measured):
        folder, _, path = world
        out = tmp_path / "new" / "n.json"
        said = run("evaluate", path, "--data", folder, "--json", out)
        assert said.endswith(f"wrote {out}\n")
        assert run("evaluate", path, "--data", folder, "--json", out, "--quiet") == ""
        assert json.loads(out.read_text()) == measured(path, "--data", folder)[0]

    def test_only_files_that_rows_refer_to_are_read(self, world, refused, scores, measured, shared):
        folder, samples, path = world
        (folder / f"{samples[1].id}.png").write_bytes(b"no picture")
        (folder / f"{samples[2].id}.json").write_text("{")
        found, _ = measured(path, "--data", folder)
        assert (found["n"], found["missing"]) == (1, 1)
        assert any("1 files of the data cannot be read" in note for note in found["notes"])
        assert scores(path, "--data", folder, "--preset", "seg-zero")[0]["total"] == 4
        shared.write(path, [(samples[1].id, "?")])
        for command in ("score", "evaluate"):
            extra = ("--preset", "seg-zero") if command == "score" else ()
            assert f"{samples[1].id}.png" in refused(command, path, "--data", folder, *extra)
        shared.write(path, [(samples[0].id, "?")])
        assert f"{samples[2].id}.json" in refused("evaluate", path, "--data", folder, "--missing", "count-zero")
