"""`released` against a plain restatement of the released evaluation, on thousands of generated outputs."""

import json
import random
import re

import numpy as np
import pytest

from dpad_fast.evaluate.readers import released
from dpad_fast.evaluate.records import Item, Line
from dpad_fast.evaluate.ruler import Ruler, Settings
from dpad_fast.types import Sample, Target

SIDE = 840


def restated(text, truth, x_factor, y_factor, needs_thinking):
    """The evaluation's loop body: (intersection, union), or None where it skips the sample; box drawn as the mask."""
    try:
        data = json.loads(re.search(r"{[^}]+}", text).group(0))
        box_key = next((key for key in data if "bbox" in key.lower()), None)
        if box_key and len(data[box_key]) == 4:
            b = data[box_key]
            box = [round(int(b[0]) * x_factor), round(int(b[1]) * y_factor),
                   round(int(b[2]) * x_factor), round(int(b[3]) * y_factor)]  # fmt: skip
        keys = [key for key in data if "points" in key.lower()][:2]
        if len(keys) == 2:
            points = [[round(int(data[k][0]) * x_factor), round(int(data[k][1]) * y_factor)] for k in keys]
        if needs_thinking:
            think = re.search(r"<think>([^<]+)</think>", text).group(1)
            assert think
        assert points
        mask = np.zeros_like(truth)
        x1, y1, x2, y2 = (max(0, value) for value in box)
        mask[y1:y2, x1:x2] = True
    except Exception:
        return 0, int(truth.sum())
    union = int(np.logical_or(mask, truth).sum())
    return None if union == 0 else (int(np.logical_and(mask, truth).sum()), union)


def outputs(count, seed):
    draw = random.Random(seed)

    def number():
        wild = [draw.randint(-50, 900), draw.uniform(0, 840), str(draw.randint(0, 800)), True, None, "x", 1e999]
        wild.append(10 ** draw.randint(0, 400))
        return draw.choice(wild[: draw.choice([1, 2, 3, 8])])

    for _ in range(count):
        low = [draw.randint(0, 700), draw.randint(0, 700)]
        box = [*low, low[0] + draw.randint(0, 139), low[1] + draw.randint(0, 139)]
        box = box if draw.random() < 0.6 else [number() for _ in range(draw.choice([4, 4, 4, 3, 5]))]
        answer = {draw.choice(["bbox", "bbox", "BBox_2d", "box"]): box}
        if draw.random() < 0.05:
            answer = {"bbox": [5, 5, 5, 5]}  # covers no pixel
        for name in draw.choice([("points_1", "points_2"), ("Points", "my_points", "points_3"), ("points_1",), ()]):
            answer[name] = [number(), number()] if draw.random() < 0.3 else [5, 6]
        body = json.dumps(answer)
        body = draw.choice(
            [body, body, body, body[:-1], body.replace('"', "'"), "{}" + body, "{a} " + body, "[" + body + "]"]
        )
        think = draw.choice(
            [
                "<think>why</think>",
                "<think>why</think>",
                "<think></think>",
                "<think>a<b</think>",
                "",
                "<think><think>x</think>",
                "<think>{1}</think>",
            ]
        )
        yield f"{think}<answer>{body}</answer>"


@pytest.mark.parametrize("reading", ["released", "seg-zero"])
@pytest.mark.parametrize(("width", "height"), [(840, 840), (61, 43)])
def test_released_is_the_released_evaluation(reading, width, height):
    random_ = np.random.default_rng(width)
    truths = [np.zeros((height, width), bool), random_.random((height, width)) < 0.5]
    truths[1][:, : width // 3] = False
    count = 1500 if width < 100 else 120
    texts = list(outputs(count, seed=width))
    settings = Settings(format="dpad-released", segmenter="box", protocols=(reading,), full=False)
    kinds = set()
    for t, truth in enumerate(truths):
        target = Target(mask=truth, image_size=(width, height))
        sample = Sample(f"s{t}", "none.png", "q", target)
        items = [Item(sample, tuple(Line(f"p:{i}", text=text) for i, text in enumerate(texts)))]
        for text, record in zip(texts, Ruler(settings).measure(items), strict=True):
            expected = restated(text, truth, width / SIDE, height / SIDE, reading == "seg-zero")
            found = record["protocols"][reading]
            assert (None if found is None else tuple(found[:2])) == expected, text
            if expected is not None:
                assert found[2] == (expected[0] / expected[1] if expected[1] else 0)
            kinds.add("dropped" if expected is None else "zero" if expected[0] == 0 else "hit")
    assert kinds == {"dropped", "zero", "hit"}


def test_hostile_text_is_read_in_linear_time():
    import time

    begin = time.perf_counter()
    for piece in ("<think>", "{", "<", "<think>a<", '{"bbox":'):
        assert released.read(piece * (1_000_000 // len(piece)), (1.0, 1.0), needs_thinking=True) is None
    assert time.perf_counter() - begin < 5
