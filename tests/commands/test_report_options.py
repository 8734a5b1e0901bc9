"""Every option of `report` and `audit` changes what comes out."""

import json
import re

import pytest

from dpad_fast.data import reasonseg, shapes


@pytest.fixture
def theirs(tmp_path):
    """Records of evaluate without pictures and truth, and the data that they are about."""
    folder = shapes.export_reasonseg(tmp_path / "data", seed=3, count=3)
    rows = []
    for item in reasonseg.load(folder):
        # Ids of their own, so that no scene is drawn again in place of what --data holds.
        box = [int(value) for value in item.target.box]
        answer = json.dumps({"bbox": box, "points_1": box[:2], "points_2": box[:2]})
        text = f"<think>a</think><answer>{answer}</answer><caption>{item.query}</caption>"
        rows.append({"id": item.id.replace("shapes", "x"), "text": text, "intersection": 1, "union": 2})
    for path in sorted((tmp_path / "data").iterdir()):
        path.rename(path.with_name(path.name.replace("shapes", "x")))
    (tmp_path / "theirs.json").write_text(json.dumps({"records": rows}))
    return tmp_path / "theirs.json"


def blocks(path):
    """The data of a page, by element."""
    found = re.findall(r"<script type='application/json' id='([^']*)'>(.*?)</script>", path.read_text())
    return {name: json.loads(text) for name, text in found}


class TestReport:
    def test_result_and_out_and_quiet(self, theirs, tmp_path, run):
        said = run("report", theirs)
        assert re.fullmatch(rf"wrote {tmp_path}/report.html \(0\.\d MB\)\n", said)
        out = tmp_path / "new" / "x.html"
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "result.json").write_text(theirs.read_text())
        assert run("report", tmp_path / "run", theirs, "--out", out, "--quiet") == ""
        series = [one["name"] for one in blocks(out)["data"]["series"]]
        assert series == ["run", "theirs"]

    def test_data_and_form(self, theirs, tmp_path, run, refused):
        run("report", theirs)
        assert blocks(tmp_path / "report.html")["pictures-0"] == [None] * 3
        for form in ([], ["--form", "reasonseg"]):
            run("report", theirs, "--data", tmp_path / "data", *form)
            found = blocks(tmp_path / "report.html")
            assert None not in found["pictures-0"]
            assert found["data"]["samples"][0]["mask"]["size"] == [shapes.SIDE, shapes.SIDE]
        assert "form must be one of" in refused("report", theirs, "--data", tmp_path / "data", "--form", "x")
        assert "--form goes with --data" in refused("report", theirs, "--form", "reasonseg")

    def test_thumb_and_limit(self, theirs, tmp_path, run, refused):
        given = ["report", theirs, "--data", tmp_path / "data"]
        run(*given, "--thumb", 0)
        assert blocks(tmp_path / "report.html")["pictures-0"] == [None] * 3
        sizes = []
        for pixels in (16, 100):
            run(*given, "--thumb", pixels, "--limit", 2)
            found = blocks(tmp_path / "report.html")
            assert len(found["data"]["samples"]) == 2
            sizes.append(len(found["pictures-0"][0]))
        assert sizes[0] < sizes[1]
        assert "--thumb must be at least 0" in refused(*given, "--thumb", -1)
        assert "--limit must be at least 0" in refused(*given, "--limit", -1)


class TestAudit:
    def test_result_json_and_quiet(self, theirs, tmp_path, run):
        said = run("audit", theirs)
        assert "description that echoes the query" in said
        found = json.loads(run("audit", theirs, theirs, "--json", "-"))
        assert [series["name"] for series in found["series"]] == ["theirs", "theirs (2)"]
        assert run("audit", theirs, "--json", tmp_path / "a.json", "--quiet") == ""
        assert json.loads((tmp_path / "a.json").read_text())["series"] == found["series"][:1]

    def test_data_and_form_and_examples(self, theirs, tmp_path, run, refused):
        def echo(*options):
            found = json.loads(run("audit", theirs, *options, "--json", "-"))
            (check,) = [c for c in found["series"][0]["checks"] if c["check"] == "caption-echoes-query"]
            return check

        assert echo()["count"] == 0  # nobody knows the query
        known = echo("--data", tmp_path / "data", "--form", "reasonseg")
        assert (known["count"], known["of"], known["share"], len(known["examples"])) == (3, 3, 1.0, 3)
        assert len(echo("--data", tmp_path / "data", "--examples", 1)["examples"]) == 1
        assert "--examples must be at least 0" in refused("audit", theirs, "--examples", -1)

    def test_encoder(self, theirs, tmp_path, run, refused):
        given = ["audit", theirs, "--data", tmp_path / "data", "--json", "-"]

        def earned(*options):
            checks = json.loads(run(*given, *options))["series"][0]["checks"]
            (check,) = [c for c in checks if c["check"] == "caption-echoes-query"]
            return check["examples"][0]["earns"]["dpad"]

        assert earned()["left_out"] == ["discriminative"]
        assert "discriminative" in earned("--encoder", "shapes")["terms"]
        assert "no such" in refused(*given, "--encoder", "no such").lower()
