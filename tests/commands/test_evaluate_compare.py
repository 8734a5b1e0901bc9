"""`dpad-fast evaluate --compare`: which files may be the other side, and what is not said of both."""

import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def two(world, tmp_path, shared):
    """The data, and its three samples answered well by one run and badly by another."""
    folder, samples, _ = world
    texts = [shared.completion(shared.box_answer(sample.target.box)) for sample in samples]
    good = shared.write(tmp_path / "good.jsonl", zip((s.id for s in samples), texts, strict=True))
    bad = shared.write(tmp_path / "bad.jsonl", [(sample.id, "?") for sample in samples])
    return folder, samples, good, bad


def test_the_released_output_may_be_the_other_side(two, tmp_path, measured):
    folder, _, good, bad = two
    lines = [json.loads(line) for line in bad.read_text().splitlines()]
    listed = tmp_path / "released.json"
    listed.write_text(json.dumps([{"image_id": line["id"], "output_txt": line["completion"]} for line in lines]))
    found, _ = measured(good, "--data", folder, "--compare", listed)
    wanted, _ = measured(good, "--data", folder, "--compare", bad)
    assert found["comparison"]["differences"] == wanted["comparison"]["differences"]
    assert found["comparison"]["differences"]["strict"]["gIoU"]["value"] > 0.5


def record(**changed):
    whole = {"id": "a", "protocols": {"strict": [1, 2, 0.5]}, "reason": None, "truth_empty": False, "format_ok": True}
    return whole | {"predicted_empty": False, "lenient_ok": True, "s1": None, "s2": None, "chain_tokens": 3} | changed


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not valid JSON: "),
        (b"\xff\xfe{}", "is not valid JSON: "),
        ('{"a":' * 100_000, "is not valid JSON: nested too deeply"),
        ({"records": [1]}, "is no JSON of evaluate with strict"),
        ({"records": [record(protocols={"lisa": [1, 2, 0.5]})]}, "is no JSON of evaluate with strict"),
        ({"records": [record(protocols={"strict": [1, 2]})]}, "is no JSON of evaluate with strict"),
        ({"records": [record(id=5)]}, "is no JSON of evaluate with strict"),
        (
            {"records": [record(), {"id": "b", "protocols": {"strict": None}}]},
            "records[1] is not whole: no 'truth_empty'",
        ),
        ({"records": [record(box_areas=[1, 0])]}, "records[0] is not whole: "),
        ({"records": [record(chain_tokens=float("nan"))]}, "holds numbers that are not finite"),
        (None, "No such file"),
    ],
)
def test_a_broken_other_side_is_told_before_the_work(two, tmp_path, refused, monkeypatch, content, said):
    from dpad_fast.evaluate import chunks

    folder, _, good, _ = two
    other = tmp_path / "other.json"
    if content is not None:
        raw = content if isinstance(content, str | bytes) else json.dumps(content)
        other.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    monkeypatch.setattr(chunks, "measure_into", lambda *_: pytest.fail("the work had begun"))
    told = refused(good, "--data", folder, "--compare", other)
    assert "other.json" in told
    assert said in told


@pytest.fixture
def refused(refused):
    return lambda *arguments: refused("evaluate", *arguments)


def test_standard_input_is_not_both_sides(two, refused):
    assert "so are the predictions" in refused("--predictions", "-", "--data", two[0], "--compare", "-")


def test_what_one_side_has_not_is_not_compared(two, tmp_path, measured):
    """Boxes against masks, similarities against none: a difference to nothing would look like a gain."""
    folder, samples, good, _ = two
    masks = tmp_path / "masks"
    masks.mkdir()
    for sample in samples[1:]:
        Image.fromarray(np.uint8(255 * sample.target.mask)).save(masks / f"{sample.id}.png")
    first = ("--data", folder, "--missing", "count-zero")
    found, metrics = measured(good, *first, "--encoder", "shapes", "--compare", masks)
    assert {"box_giou", "s1_wins"} <= metrics.keys()
    assert not {"box_giou", "box_ciou", "box_p50"} & found["comparison"]["differences"]["every protocol"].keys()
    plain = tmp_path / "plain.json"
    assert measured(good, *first)[0]["n"] == 3
    plain.write_text(json.dumps(measured(good, *first)[0]))
    found, _ = measured(good, *first, "--encoder", "shapes", "--compare", plain)
    differences = found["comparison"]["differences"]["every protocol"]
    assert "box_giou" in differences
    assert not {"s1", "s2", "s1_wins"} & differences.keys()


def test_differences_have_the_names_of_the_tables(two, run):
    folder, _, good, bad = two
    said = run("evaluate", good, "--data", folder, "--compare", bad)
    assert "every protocol: chain length" in said
    assert "every protocol: format, strict" in said
    assert "s1_wins" not in said


def test_a_file_of_areas_takes_no_option_of_measuring(tmp_path, refused, run):
    path = tmp_path / "areas.json"
    path.write_text(json.dumps([{"image_id": "a", "intersection": 1, "union": 4}]))
    assert "0.2500" in run("evaluate", path, "--table", "markdown")
    for option in (
        ("--protocol", "lisa"),
        ("--compare", path),
        ("--workers", 2),
        ("--encoder", "shapes"),
        ("--resize",),
    ):
        assert f"{option[0]} needs --data: {path} holds areas" in refused(path, *option)
