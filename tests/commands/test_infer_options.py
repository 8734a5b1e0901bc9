"""Every option of `infer`, the commands of its page, and what it refuses."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dpad_fast as df
from dpad_fast import cli
from dpad_fast.data import shapes
from dpad_fast.testing import pages
from dpad_fast.testing.segmenters import write_small_sam2
from dpad_fast.train.config import from_dict
from dpad_fast.train.resume import seal
from dpad_fast.train.tiny_policy import write_tiny_policy

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder with a scene as a picture."""
    monkeypatch.chdir(tmp_path)
    shapes.sample(9000, 0).image.save("scene.png")
    return tmp_path


@pytest.fixture
def answers(run):
    """A function: arguments -> the answers of the JSON."""

    def answers(*arguments):
        found = json.loads(run("infer", *arguments, "--json", "-"))
        assert found["n"] == len(found["answers"])
        return found["answers"]

    return answers


@pytest.fixture
def asked(monkeypatch):
    """What `infer` is called with; it answers nothing."""
    seen = []

    def record(model, processor, images, queries, **settings):
        seen.append({"queries": list(queries), "processor": processor, **settings})
        return [[] for _ in images]

    monkeypatch.setattr("dpad_fast.evaluate.infer.infer", record)
    return seen


def test_shapes_seed_encoder_out_and_words(run, here):
    said = run("infer", "--shapes", 2, "--seed", 9000, "--encoder", "shapes", "--out", "pictures")
    assert said.startswith("scene-0: find the plain one that stacks\n  chain        i see a green plain circle ,")
    assert "  location     box (77, 77, 112, 112), point (91, 91), point (91, 98)\n" in said
    assert (
        "  description  a yellow plain square\n  S1 0.7559, S2 0.4615\n  mask         1,225 of 12,544 pixels\n" in said
    )
    assert sorted(path.name for path in (here / "pictures").iterdir()) == ["scene-0.png", "scene-1.png"]
    with Image.open("pictures/scene-0.png") as overlay:
        assert overlay.width == 448


def test_a_picture_question_segmenter_and_json(answers, run, capsys):
    (found,) = answers("scene.png", "find the plain one that stacks", "--quiet")
    assert (found["image"], found["overlay"]) == ("scene.png", "infer-out/scene.png")
    assert found["description"] == "a yellow plain square"
    assert df.coco_mask.decode(found["mask"]).sum() == 35 * 35
    (by_colour,) = answers("scene.png", "find the plain one that stacks", "--segmenter", "background", "--quiet")
    assert np.array_equal(df.coco_mask.decode(by_colour["mask"]), shapes.sample(9000, 0).target.mask)
    write_small_sam2("sam")
    (by_sam,) = answers("scene.png", "find the plain one that stacks", "--segmenter", "sam2:sam", "--quiet")
    assert by_sam["mask"] != found["mask"]
    assert (by_sam["s1"], by_sam["reason"], by_sam["size"]) == (None, None, [112, 112])
    assert run("infer", "scene.png", "find", "--quiet", "--tokens", 2) == ""
    capsys.readouterr()
    assert cli.main(["infer", "scene.png", "find", "--tokens", "2"]) == 0
    said = capsys.readouterr()
    assert "the built-in policy knows pictures of the shapes world only" in said.err
    assert "  location     none (no-tags)" in said.out


def test_temperature_samples_seed_and_batch(answers, here):
    given = ("--shapes", 1, "--temperature", 1.5, "--samples", 4, "--tokens", 30, "--seed")
    texts = [[a["text"] for a in answers(*given, seed, "--batch", 4)] for seed in (3, 3, 4)]
    assert texts[0] == texts[1] != texts[2]
    assert len(texts[0]) == 4
    assert len(list((here / "infer-out").glob("scene-0-[0123].png"))) == 4


def test_options_that_reach_the_work(asked, run):
    run("infer", "scene.png", "scene.png", "Where?", "--prompt-template", "Find {question}", "--system", "You see.",
        "--coordinates", "norm1000", "--batch", 3, "--tokens", 17, "--temperature", 0.5, "--samples", 2, "--seed", 5,
        "--device", "cpu", "--quiet")  # fmt: skip
    (seen,) = asked
    assert seen["queries"] == ["Where?"] * 2
    names = ("coordinates", "batch", "max_new_tokens", "temperature", "per_image", "seed")
    assert [seen[name] for name in names] == ["norm1000", 3, 17, 0.5, 2, 5]
    system, user = seen["ask"]("Where?")
    assert system == {"role": "system", "content": [{"type": "text", "text": "You see."}]}
    assert user["content"][1] == {"type": "text", "text": "Find Where?"}


def test_another_policy_is_asked_in_full(asked, run):
    write_tiny_policy("policy", "Qwen/Qwen3-VL-4B-Instruct")
    run("infer", "scene.png", "Where?", "--policy", "./policy", "--quiet")
    (seen,) = asked
    (user,) = seen["ask"]("Where?")
    assert seen["coordinates"] == "norm1000"
    assert "'where?'" in user["content"][1]["text"]
    assert "thousandths" in user["content"][1]["text"]
    assert (seen["max_new_tokens"], seen["model_size"]) == (512, None)


def test_a_trained_policy_is_asked_as_its_run_asked_it(asked, run):
    config = from_dict(
        {
            "max_pixels": 50176,
            "min_pixels": 3136,
            "data": {"kind": "reasonseg", "path": "x", "prompt": "Seek {question}", "system_prompt": "You see."},
            "grpo": {"completion_tokens": 33},
            "rewards": {"preset": "dpad", "model_size": [840, 840]},
        }
    )
    write_tiny_policy("run/policy", "Qwen/Qwen2.5-VL-3B-Instruct")
    seal(Path("run/policy"), 3)
    content = {"fingerprint": config.fingerprint(), "config": config.as_dict()}
    Path("run/config.json").write_text(json.dumps(content))
    for policy in ("run", "run/policy"):
        run("infer", "scene.png", "Where?", "--policy", policy, "--quiet")
    for seen in asked:
        system, user = seen["ask"]("Where?")
        assert system["content"][0]["text"] == "You see."
        assert user["content"][1]["text"] == "Seek Where?"
        assert (seen["max_new_tokens"], seen["model_size"], seen["coordinates"]) == (33, (840, 840), "pixel")
        assert seen["processor"].image_processor.size["longest_edge"] == 50176
    run(
        "infer",
        "scene.png",
        "Where?",
        "--policy",
        "run",
        "--tokens",
        9,
        "--prompt-template",
        "Find {question}",
        "--quiet",
    )
    assert asked[2]["max_new_tokens"] == 9
    assert asked[2]["ask"]("Where?")[1]["content"][1]["text"] == "Find Where?"


def test_files_of_one_name_have_overlays_of_their_own(run, here):
    (here / "b").mkdir()
    Image.new("RGB", (30, 20)).save("b/scene.jpg")
    run("infer", "scene.png", "b/scene.jpg", "q", "--tokens", 2, "--quiet")
    assert sorted(path.name for path in (here / "infer-out").iterdir()) == ["scene.1.png", "scene.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give one or more pictures and then a question, or --shapes SCENES"),
        (("scene.png",), "give one or more pictures and then a question"),
        (("q", "scene.png"), "the last argument is the question, but 'scene.png' is a file"),
        (("none.png", "q"), "no such picture: none.png"),
        (("scene.png", "q", "--shapes", "2"), "--shapes has pictures and questions of its own"),
        (("--shapes", "0"), "--shapes must be from 1 to 10,000, got 0"),
        (("scene.png", "q", "--samples", "2"), "--samples 2 needs --temperature"),
        (("scene.png", "q", "--temperature", "nan"), "temperature must be 0 (greedy) or more"),
        (("scene.png", "q", "--batch", "0"), "--batch must be at least 1, got 0"),
        (("scene.png", "q", "--tokens", "0"), "--tokens must be at least 1, got 0"),
        (("scene.png", "q", "--seed", "-1"), "--seed must be at least 0"),
        (("scene.png", "q", "--segmenter", "boxes"), "segmenter is 'boxes'; known: box, polygon"),
        (("scene.png", "q", "--coordinates", "percent"), "coordinates must be one of pixel"),
        (("scene.png", "q", "--device", "tpu9"), "device 'tpu9' is none"),
        (("scene.png", "q", "--policy", "/no/such"), "policy '/no/such' cannot be loaded"),
        (("scene.png", "q", "--json", "scene.png"), "would be written over an input"),
        (("scene.png", "q", "--prompt-template", "Look"), "{question}"),
        (("broken.png", "q"), "broken.png"),
    ],
)
def test_mistakes_are_one_line(here, capsys, arguments, message):
    (here / "broken.png").write_bytes(b"\x89PNG no picture")
    assert cli.main(["infer", *arguments, *(("--quiet",) if "--quiet" not in arguments else ())]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert message in said.err


def test_an_overlay_is_not_written_over_a_picture(refused, here):
    before = (here / "scene.png").read_bytes()
    assert "would be written over an input" in refused("infer", "scene.png", "q", "--out", ".", "--quiet")
    assert (here / "scene.png").read_bytes() == before


def test_the_pages_commands_run(run, here):
    write_tiny_policy("policy", "Qwen/Qwen2.5-VL-3B-Instruct")
    write_small_sam2("sam2")
    for name in ("kitchen.jpg", "garden.jpg"):
        Image.new("RGB", (120, 90), (80, 90, 30)).save(name)
    page = (DOCS / "infer.md").read_text(encoding="utf-8")
    commands = [line for block in pages.blocks(page, "bash") for line in block.splitlines()]
    assert len(commands) == 4
    said = run(*shlex.split(commands[0])[1:])
    assert re.findall(r"```\n(scene-0.*?)```", page, re.DOTALL)[0] in said
    for command in commands[1:]:
        run(*shlex.split(command)[1:], "--tokens", "8")
    assert json.loads((here / "answers.json").read_text())["n"] == 2
    assert len(list((here / "samples").iterdir())) == 4


@pytest.mark.parametrize("page", ["infer.md", "segmenters.md"])
def test_the_pages_python_prints_what_it_says(page):
    ran = pages.run_python((DOCS / page).read_text(encoding="utf-8"))
    assert ran
    assert [block.printed for block in ran] == [block.promised for block in ran]
