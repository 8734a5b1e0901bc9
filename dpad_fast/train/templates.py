"""Prompts by name: the requests of the three papers, in our own words.

The question is in lower case and without the full stop at its end, as in the three releases. The answer's form is the
one that `rewards.parse` reads.
"""

from __future__ import annotations

_SPACES = {
    "pixel": "pixels of the picture",
    "norm1000": "thousandths of the picture's width and height, from 0 to 1000",
    "norm1": "shares of the picture's width and height, from 0 to 1",
}
_ONE = {
    "pixel": '{"bbox": [22, 87, 190, 246], "points_1": [71, 130], "points_2": [128, 197]}',
    "norm1000": '{"bbox": [22, 87, 190, 246], "points_1": [71, 130], "points_2": [128, 197]}',
    "norm1": '{"bbox": [0.02, 0.09, 0.19, 0.25], "points_1": [0.07, 0.13], "points_2": [0.13, 0.2]}',
}
_SEVERAL = {
    "pixel": '[{"bbox_2d": [22, 87, 190, 246], "point_2d": [71, 130]}, {"bbox_2d": [318, 40, 402, 99], "point_2d": '
    "[355, 61]}]",
    "norm1": '[{"bbox_2d": [0.02, 0.09, 0.19, 0.25], "point_2d": [0.07, 0.13]}, {"bbox_2d": [0.32, 0.04, 0.4, 0.1], '
    '"point_2d": [0.36, 0.06]}]',
}
_SEVERAL["norm1000"] = _SEVERAL["pixel"]
_FIND_ONE = (
    "Locate '{question}' in the picture with one box and two points. Compare how the objects differ, and choose the "
    "one that fits best. First write your reasoning inside <think> </think>, then the answer inside <answer> </answer> "
    "as JSON: the box, and two points well inside the object, in {space}."
)
_CAPTION = (
    " Last, describe inside <caption> </caption> what the box holds, so that it can be told from the rest of the "
    "picture."
)
_FIND_ALL = (
    "Locate every object that '{question}' refers to, with a box and a point each. Compare how the objects differ, and "
    "choose those that fit. First write your reasoning inside <think> </think>, then the answer inside <answer> "
    "</answer> as a JSON list: each object's box, and a point inside it, in {space}."
)
_SHAPE = " The form is: <think> your reasoning </think><answer>{answer}</answer>"
_TEXTS = {
    "dpad": (_FIND_ONE + _CAPTION + _SHAPE + "<caption> your description </caption>", _ONE),
    "seg-zero": (_FIND_ONE + _SHAPE, _ONE),
    "vision-reasoner": (_FIND_ALL + _SHAPE, _SEVERAL),
}


def prompt_text(prompt: str, question: str, coordinates: str = "pixel") -> str:
    """The user's text.

    Args:
        prompt: "dpad", "seg-zero", "vision-reasoner", or a text in which {question} is replaced as it is.
        question: the query.
        coordinates: the space that a named template asks for: "pixel", "norm1000" or "norm1".

    Returns:
        The text.
    """
    if prompt not in _TEXTS:
        return prompt.replace("{question}", question)
    text, answers = _TEXTS[prompt]
    asked = question.strip().lower().strip(".")
    filled = text.replace("{answer}", answers[coordinates]).replace("{space}", _SPACES[coordinates])
    return filled.replace("{question}", asked)
