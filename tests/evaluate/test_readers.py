"""Readers of other projects' answers: strict and tolerant, and hostile text in linear time."""

import time

import pytest

from dpad_fast.evaluate import readers

BOX = (1.0, 2.0, 30.0, 40.0)
T = "<think>t</think><answer>%s</answer><caption>c</caption>"
STRICT = {
    "picture": T % '{"bbox": [1, 2, 30, 40], "points_1": [5, 5], "points_2": [6, 6]}',
    "dpad": T % '{"bbox": [1, 2, 30, 40], "points_1": [5, 5], "points_2": [6, 6]}',
    "dpad-released": T % '{"bbox": [1, 2, 30, 40], "points_1": [5, 5], "points_2": [6, 6]}',
    "seg-zero": '<think>t</think><answer>{"bbox": [1, 2, 30, 40], "points_1": [5, 5], "points_2": [6, 6]}</answer>',
    "pixelthink": '<think>t</think><answer>{"bbox": [1, 2, 30, 40], "points_1": [5, 5], "points_2": [6, 6]}</answer>',
    "vision-reasoner": '<think>t</think><answer>[{"bbox_2d": [1, 2, 30, 40], "point_2d": [5, 5]}]</answer>',
    "seg-r1": "<think>t</think><bbox>[1, 2, 30, 40]</bbox>, <points>[[5, 5], [9, 9]]</points>, <labels>[1, 0]</labels>",
    "vlm-r1": '<think>t</think><answer>```json\n[{"bbox_2d": [1, 2, 30, 40], "label": "x"}]\n```</answer>',
    "visual-rft": "<think>t</think><answer>[{'Position': [1, 2, 30, 40], 'Confidence': 0.5}]</answer>",
    "univg-r1": "<think>t</think><answer>(1,2),(30,40)</answer>",
    "perception-r1": "<|object_ref_start|>x<|object_ref_end|><|box_start|>(1,2),(30,40)<|box_end|><|im_end|>",
    "lens": "<|object_ref_start|>x<|object_ref_end|><|box_start|>(1,2),(30,40)<|box_end|><|im_end|>",
    "rex-thinker": "<think>t</think><answer>[1, 2, 30, 40]</answer>",
    "qwen3-vl": '```json\n[{"bbox_2d": [1, 2, 30, 40], "label": "x"}]\n```',
}
TOLERANT = {
    "dpad": "<think>t</think><answer>```json\n{'bbox_2d': [1, 2, 30, 40],}\n```<|im_end|>",
    "dpad-released": "<answer>{'bbox': [1, 2, 30, 40], }</answer>",
    "seg-zero": "Here: {'bbox': [1, 2, 30, 40]}",
    "vision-reasoner": "<answer>[{'bbox': [1, 2, 30, 40], 'point_2d': [5, 5],},]</answer>",
    "vlm-r1": "<answer>{'bbox': [1, 2, 30, 40],}<|im_end|>",
    "visual-rft": "[{'Position': [1, 2, 30, 40]}]",
    "univg-r1": "<think>t</think>[1, 2, 30, 40]",
    "lens": "<think>(7,7),(9,9)</think>(1, 2), (30, 40)",
    "rex-thinker": "the box is [1, 2, 30, 40]",
    "qwen3-vl": "It is {'bbox': [1, 2, 30, 40], 'ok': True}.",
    "seg-r1": "<bbox>[1, 2, 30, 40,]</bbox>",
}


def box_of(reading):
    return reading.answer.box if reading.answer.box is not None else reading.answer.objects[0][0]


def test_every_format_has_a_case():
    assert set(STRICT) == set(readers.FORMATS)


@pytest.mark.parametrize("name", STRICT)
def test_strict_form(name):
    reading = readers.read(readers.FORMATS[name], STRICT[name])
    assert box_of(reading) == BOX
    assert (reading.readable, reading.format_ok, reading.lenient_ok, reading.says_none) == (True, True, True, False)
    assert reading.reason is None


@pytest.mark.parametrize("name", TOLERANT)
def test_tolerant_form(name):
    reading = readers.read(readers.FORMATS[name], TOLERANT[name])
    assert box_of(reading) == BOX
    assert (reading.readable, reading.format_ok, reading.lenient_ok) == (True, False, True)
    assert reading.reason is not None


@pytest.mark.parametrize("name", STRICT)
@pytest.mark.parametrize(
    "text",
    ["", "?", "<think>t</think><answer>{}</answer>", "[1, 2, 1e999, 4]", "(30,40),(1,2)", "[[[[1,2", "[30,40,1,2]",
     '{"bbox": [1, 2, NaN, 4], "points_1": [1, 2], "points_2": [1, 2]}']
)  # fmt: skip
def test_what_is_no_box_is_not_readable(name, text):
    reading = readers.read(readers.FORMATS[name], text)
    assert not reading.readable
    assert not reading.format_ok
    assert reading.reason is not None


def test_extras():
    reading = readers.read(readers.FORMATS["seg-r1"], STRICT["seg-r1"])
    assert (reading.answer.points, reading.labels) == (((5.0, 5.0), (9.0, 9.0)), (1, 0))
    assert readers.read(readers.FORMATS["visual-rft"], STRICT["visual-rft"]).scores == (0.5,)
    for name, text in (("rex-thinker", "<think>t</think><answer>None</answer>"), ("vision-reasoner", T % "[]")):
        assert readers.read(readers.FORMATS[name], text).says_none
    many = '[{"bbox_2d": [1, 2, 30, 40]}, {"bbox_2d": [5, 6, 7, 8]}]'
    assert len(readers.read(readers.FORMATS["qwen3-vl"], many).answer.objects) == 2


@pytest.mark.parametrize("name", STRICT)
def test_hostile_text_is_read_in_linear_time(name):
    form = readers.FORMATS[name]
    begin = time.perf_counter()
    pieces = ("<think>", "{", "[", '"', "'", "(", '"\\"', "'\\'", "(1,", "[1,1,1,", ",", "```", "<|a", "</think>", "\\",
              "(1,1),(1,1", "[1, 1, 1, 1", "{'a':", "<bbox>", "<|box_start|>")  # fmt: skip
    for piece in pieces:
        readers.read(form, "<think>a</think><answer>" + piece * (200_000 // len(piece)))
    assert time.perf_counter() - begin < 20  # quadratic time would take hours
