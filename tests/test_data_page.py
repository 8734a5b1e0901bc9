"""docs/bring-your-own-data.md prints what it says, and every error of its table is one that the package raises."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dpad_fast as df
from dpad_fast.data import reasonseg
from dpad_fast.testing import pages
from dpad_fast.testing import rewards as shared

PAGE = Path(__file__).parents[1] / "docs" / "bring-your-own-data.md"


def test_every_block_prints_what_its_comments_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = pages.run_python(PAGE.read_text(encoding="utf-8"), joined=True)
    assert [block.printed for block in ran] == [block.promised for block in ran]
    assert sum(len(block.promised) for block in ran) >= 20


def rows():
    """The first column of the table of errors, as patterns."""
    table = PAGE.read_text(encoding="utf-8").split("## What each error means")[1]
    found = re.findall(r"^\| `(.*?)` \|", table, re.MULTILINE)
    holes = {
        r"\.\.\.": ".*",
        r"\[i\]": r"\[\d+\]",
        r"\[y,\ x\]": r"\[\d+, \d+\]",
        r"\[n,\ y,\ x\]": r"\[\d+, \d+, \d+\]",
    }
    patterns = {}
    for message in found:
        pattern = re.escape(message).replace(r"NAME\.json", r".*\.json")
        for hole, meaning in holes.items():
            pattern = pattern.replace(hole, meaning)
        patterns[message] = re.compile(pattern if message.endswith("...") else pattern + "$", re.DOTALL)
    assert len(patterns) == len(found) > 50
    return patterns


PICTURE = Image.new("RGB", (112, 84), "white")
POINTS = ((30, 24), (50, 40))
GOOD = {"box": (20, 12, 64, 52), "points": POINTS}
SETTINGS = {"processor_class": "Qwen2VLProcessor", "image_processor_type": "Qwen2VLImageProcessor"}
LABELS = np.eye(3, dtype=np.uint8)

# What is given to `score` in place of good arguments.
SCORED = [
    {"images": ["gone.png"]},
    {"images": ["A" * 5000]},
    {"images": ["data:image/png;base64,A"]},
    {"images": ["data:image/svg+xml,<svg/>"]},
    {"images": ["note.txt"]},
    {"images": ["cut.png"]},
    {"images": ["limit.png"]},
    {"images": [[PICTURE]]},
    {"images": [None]},
    {"images": [{}]},
    {"images": [np.zeros((84, 112, 3), np.float32)]},
    {"images": [np.zeros((84, 112, 5), np.uint8)]},
    {"images": [np.zeros((0, 4, 3), np.uint8)]},
    {"images": None},
    {"images": [PICTURE] * 2},
    {"images": [PICTURE, Image.new("RGB", (9, 9))], "copies": 2, "image_keys": ["a", "a"]},
    {"targets": [{"box": GOOD["box"]}]},
    {"targets": [df.Target(points=POINTS)]},
    {"targets": [df.Target(box=GOOD["box"])]},
    {"targets": [df.Target(box=(64, 52, 20, 12), points=POINTS)]},
    {"targets": [df.Target(box=(700, 800, 900, 950), points=POINTS)]},
    {"targets": [df.Target(box=(0.2, 0.1, 0.6, 0.6), points=POINTS)]},
    {"targets": [df.Target(box=(20.1, 12, 20.3, 52), points=POINTS)]},
    {"targets": ["<box>(1,2),(3,4)"]},
    {"targets": [df.Target(**GOOD, image_size=(224, 168))]},
    {"targets": [df.Target(**GOOD)], "settings": {"region": "mask"}},
    {"targets": [df.Target(**GOOD, mask=np.zeros((84, 112), bool))], "settings": {"region": "mask"}},
    {"targets": [df.Target(**GOOD)], "images": None, "preset": "seg-zero", "settings": {"coordinates": "norm1000"}},
    {"model_sizes": [(112, 0)]},
    {"completions": [None]},
]

# Calls of everything else.
CALLED = [
    (df.Target.parse, ("<box>(1,2),(3,4)</box>" * 2,), {}),
    (df.Target.parse, ("left of the door",), {}),
    (df.Target.parse, ("[{]",), {}),
    (df.Target.parse, ("[]",), {}),
    (df.Target.parse, ('[{"bbox": [1, 2, 3, 4]}]',), {}),
    (df.Target, (), {"objects": [(GOOD["box"],)]}),
    (df.Target, (), {"box": "1234"}),
    (df.Target, (), {"box": (1, 2, float("nan"), 4)}),
    (df.Target, (), {"box": (1, 2, 3)}),
    (df.Target, (), {"box": (1, 2, 0, 4), "box_format": "xywh"}),
    (df.Target, (), {"box": (1, 2, 3, 4), "box_format": "yxyx"}),
    (df.Target, (), {"points": ((1, 2),)}),
    (df.Target, (), {"image_size": (480.5, 640)}),
    (df.Target, (), {"mask": LABELS * np.uint8(255)}),
    (df.Target, (), {"mask": LABELS * 0.7}),
    (df.Target, (), {"mask": LABELS[None]}),
    (df.Target, (), {"mask": PICTURE}),
    (df.Target, (), {"mask": np.zeros((480, 640), bool), "image_size": (480, 640)}),
    (df.Target, (), {"polygons": [[1, 2, 3, 4, 5, 6]]}),
    (df.Target, (), {"polygons": [[(200, 200), (210, 200), (210, 210)]], "image_size": (112, 84)}),
    (df.Target, (), {"polygons": [[(0.2, 0.2), (0.3, 0.2), (0.3, 0.3)]], "image_size": (112, 84)}),
    (df.ops.mask_iou, (LABELS[None] * 0.7, LABELS[None]), {}),
    (df.ops.mask_iou, (LABELS[None] * np.uint8(255), LABELS[None]), {}),
    (df.ops.mask_iou, (LABELS[None] * np.nan, LABELS[None]), {}),
    (df.model_size_for, ((10, 20), {"processor_class": "Another"}), {}),
    (df.model_size_for, ((10, 3000), SETTINGS), {}),
]

SHAPE = {"label": "target", "points": [[20, 12], [64, 12], [64, 52]]}
# Files of a folder: what replaces the content, and its encoding.
FILES = [
    ({"imageWidth": 84, "imageHeight": 112}, "utf-8"),
    ({"text": ["\u7ea2\u8272"]}, "gbk"),
    ({"shapes": [{**SHAPE, "shape_type": "points"}]}, "utf-8"),
    ({"shapes": [{**SHAPE, "shape_type": "rectangle"}]}, "utf-8"),
    ({}, "alone"),
]


@pytest.fixture(scope="module")
def encoder():
    return df.ClipEncoder.from_transformers(*shared.tiny_clip())


def error_of(function, *args, **settings):
    with pytest.raises(ValueError, match=r"\w") as caught:
        function(*args, **settings)
    return str(caught.value)


def scored(encoder, case):
    case = dict(case)
    preset, settings, copies = case.pop("preset", "dpad"), case.pop("settings", {}), case.pop("copies", 1)
    config = df.RewardConfig.preset(preset, **settings)
    scorer = df.RewardScorer(config, encoder=encoder if config.needs_encoder else None)
    good = {"completions": [shared.completion()], "targets": [df.Target(**GOOD)], "images": [PICTURE]}
    return error_of(scorer.score, **{name: value * copies for name, value in good.items()} | case)


def loaded(folder, change, encoding):
    folder.mkdir()
    content = json.dumps({"text": ["the red one"], "shapes": [SHAPE], **change}, ensure_ascii=False)
    (folder / "chair.json").write_bytes(content.encode("utf-8" if encoding == "alone" else encoding))
    if encoding != "alone":
        PICTURE.save(folder / "chair.png")
    return error_of(list, reasonseg.load(folder))


def test_every_error_of_the_table_is_raised_and_every_one_raised_here_is_in_the_table(encoder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DPAD_FAST_MAX_PIXELS", "20000")
    shared.picture().save("cut.png")
    Path("cut.png").write_bytes(Path("cut.png").read_bytes()[:200])
    Path("note.txt").write_text("no picture")
    Image.new("RGB", (200, 200)).save("limit.png")
    messages = [scored(encoder, case) for case in SCORED]
    messages += [error_of(function, *args, **settings) for function, args, settings in CALLED]
    messages += [loaded(tmp_path / f"set{i}", *file) for i, file in enumerate(FILES)]
    patterns = rows()
    assert [message for message in messages if not any(row.match(message) for row in patterns.values())] == []
    assert [row for row, pattern in patterns.items() if not any(map(pattern.match, messages))] == []
