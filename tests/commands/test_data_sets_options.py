"""`dpad-fast data prepare | check | show`, each option end to end: what is written can only come from that option."""

import json

import numpy as np
import pytest

from dpad_fast import cli
from dpad_fast._mask_geometry import box_of
from dpad_fast.commands._data_source import columns_of
from dpad_fast.data import forms, shapes
from dpad_fast.model_size import WholePatches

WORLD = "shapes:3:6"


def told(capsys, status, *arguments):
    assert cli.main([str(argument) for argument in arguments]) == status
    return capsys.readouterr()


class TestPrepare:
    def test_out_size_limit_form_and_shard_rows(self, tmp_path, run):
        arguments = ("--size", "max-side=56", "--limit", "5", "--form", "shapes", "--shard-rows", "2", "--workers", "1")
        said = run("data", "prepare", WORLD, "--out", tmp_path / "o", *arguments)
        assert said == f"prepared 5 rows in 3 files in {tmp_path / 'o'}\n"
        note = json.loads((tmp_path / "o" / "dataset.json").read_text())
        assert (note["size"], note["settings"]["shard_rows"], note["counts"]["rows"]) == ("max-side=56", 2, 5)
        again = run("data", "prepare", WORLD, "--out", tmp_path / "o", *arguments)
        assert "(3 of them stood already)" in again
        assert run("data", "prepare", WORLD, "--out", tmp_path / "p", "--quiet") == ""

    def test_bad_rows_are_told_and_max_bad_makes_them_fatal(self, tmp_path, capsys):
        folder = shapes.export_reasonseg(tmp_path / "data", seed=3, count=2)
        (folder / "shapes-3-1.json").write_text("{")
        base = ("data", "prepare", folder, "--quiet", "--out")
        said = told(capsys, 0, *base, tmp_path / "o").err
        assert "left out 1 bad rows" in said
        assert "shapes-3-1.json: not valid JSON" in said
        told(capsys, 0, *base, tmp_path / "o", "--max-bad", "1")
        told(capsys, 1, *base, tmp_path / "o", "--max-bad", "0")

    def test_how_the_source_is_read(self, tmp_path, monkeypatch, run, refused):
        seen = []

        def record(path, form=None, **settings):
            seen.append((path, form, settings["split"], settings["images"]))
            return iter([shapes.sample(3, 0)])

        monkeypatch.setattr(forms, "load", record)
        run("data", "prepare", WORLD, "--out", tmp_path / "o", "--split", "val", "--images", tmp_path, "--form", "coco")
        assert seen == [(WORLD, "coco", "val", str(tmp_path))]
        assert "--columns takes KEY=NAME" in refused("data", "prepare", WORLD, "--out", "o", "--columns", "box")

    def test_mistakes(self, tmp_path, refused):
        assert "DATA is missing" in refused("data", "prepare", "--out", tmp_path)
        assert "--out is missing" in refused("data", "prepare", WORLD)
        base = ("data", "prepare", WORLD, "--out", tmp_path / "o")
        assert "size must be WIDTHxHEIGHT" in refused(*base, "--size", "big")
        for option in ("--limit", "--workers", "--shard-rows", "--max-bad"):
            assert f"{option} must be" in refused(*base, option, "-1")
        assert "--words does not go with `dpad-fast data prepare`" in refused(*base, "--words", "3")
        assert "DATA does not go with `dpad-fast data shapes`" in refused("data", "shapes", "x")


class TestCheck:
    def test_list_json_words_and_against(self, tmp_path, capsys):
        said = told(capsys, 0, "data", "check", "shapes:3:20", "--json", tmp_path / "r.json").out
        assert said.startswith("20 rows: ")
        assert json.loads((tmp_path / "r.json").read_text())["rows"] == 20
        report = json.loads(told(capsys, 0, "data", "check", WORLD, "--words", "2", "--json", "-").out)
        assert {p["kind"]: p["count"] for p in report["problems"]}["long"] == 6
        report = json.loads(told(capsys, 1, "data", "check", WORLD, "--against", "shapes:3:2", "--json", "-").out)
        assert (report["problems"][0]["kind"], report["problems"][0]["count"]) == ("shared", 2)

    @pytest.mark.parametrize(
        ("option", "factor", "said"),
        [
            ((), 1, "coordinates: pixel, and no model size"),
            ((), 1000 / 112, "coordinates: norm1000"),
            (("--model-size", "336x336"), 3, "with the processor"),
            (("--size", "336x336"), 3, "with the processor"),
            (("--processor",), 2, "with the processor"),
        ],
    )
    def test_completions(self, tmp_path, capsys, option, factor, said):
        if option == ("--processor",):
            rule = {"patch_size": 14, "merge_size": 2, "min_pixels": 224 * 224, "max_pixels": 1003520}
            (tmp_path / "preprocessor_config.json").write_text(json.dumps(rule))
            option = ("--processor", tmp_path)
            assert WholePatches(28, 224 * 224).resized((112, 112)) == (224, 224)
        lines = []
        for i in range(50):
            sample = shapes.sample(3, i)
            box = (np.array(sample.target.box) * factor).round(1).tolist()
            lines.append(json.dumps({"id": sample.id, "completion": f'[{{"bbox_2d": {box}}}]'}) + "\n")
        (tmp_path / "c.jsonl").write_text("".join(lines))
        base = ("data", "check", "--completions", tmp_path / "c.jsonl", "--data", "shapes:3:50")
        report = json.loads(told(capsys, 0, *base, *option, "--json", "-").out)
        assert report["coordinates"]["sure"] == "sure"
        assert said in report["problems"][0]["advice"]

    def test_answers_without_box_or_sample(self, tmp_path, capsys):
        rows = [("shapes-3-0", "none"), ("gone", '{"bbox": [1, 2, 3, 4]}')]
        (tmp_path / "c.jsonl").write_text("".join(json.dumps({"id": i, "completion": t}) + "\n" for i, t in rows))
        base = ("data", "check", "--completions", tmp_path / "c.jsonl", "--data", WORLD)
        report = json.loads(told(capsys, 1, *base, "--json", "-").out)
        assert [problem["kind"] for problem in report["problems"]] == ["no-sample", "no-box"]

    def test_mistakes(self, refused):
        assert "--processor goes with --completions" in refused("data", "check", WORLD, "--processor", "x/y")
        assert "--data goes with --completions" in refused("data", "check", WORLD, "--data", "x")
        assert "DATA is missing" in refused("data", "check")
        assert "--words does not go" in refused("data", "check", WORLD, "--completions", "x", "--words", "3")


class TestShow:
    def test_page_rows_and_seed(self, tmp_path, run):
        out = tmp_path / "page.html"
        said = run("data", "show", WORLD, "--out", out, "--rows", "2", "--seed", "1")
        assert said == f"wrote 2 of 6 rows to {out}\n"
        page = out.read_text()
        assert page.count("<figure>") == 2
        assert "script" not in page
        assert "default-src 'none'" in page
        run("data", "show", WORLD, "--out", tmp_path / "other.html", "--rows", "2", "--seed", "2", "--quiet")
        assert (tmp_path / "other.html").read_text() != page

    def test_text_is_escaped_and_broken_pictures_are_told(self, tmp_path, capsys):
        folder = shapes.export_reasonseg(tmp_path / "data", seed=3, count=2)
        place = folder / "shapes-3-0.json"
        place.write_text(json.dumps(json.loads(place.read_text()) | {"text": "<script>x</script>"}))
        (folder / "shapes-3-1.json").write_text("{")
        said = told(capsys, 0, "data", "show", folder, "--out", tmp_path / "p.html").err
        assert "1 rows cannot be read" in said
        page = (tmp_path / "p.html").read_text()
        assert "<script>" not in page
        assert "&lt;script&gt;x" in page


def test_columns_are_pairs():
    assert columns_of(None) is None
    with pytest.raises(ValueError, match=r"takes KEY=NAME, got 'x'"):
        columns_of(["x"])
    with pytest.raises(ValueError, match=r"names 'a' twice"):
        columns_of(["a=b", "a=c"])


def test_truth_is_drawn_where_it_is():
    from dpad_fast.evaluate.overlays import draw_truth

    sample = shapes.sample(3, 0)
    plain, drawn = np.asarray(sample.image).astype(int), np.asarray(draw_truth(sample.image, sample.target, 112, "x"))
    x1, y1, x2, y2 = map(int, box_of(sample.target.mask))
    changed = np.abs(drawn - plain).sum(axis=2) > 0
    assert changed[y1:y2, x1:x2][sample.target.mask[y1:y2, x1:x2]].mean() > 0.9
