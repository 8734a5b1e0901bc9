"""Readers of completions: one named preset per format of an answer, each with a strict and a tolerant reading."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from dpad_fast.evaluate.readers import formats
from dpad_fast.evaluate.readers import text as scan
from dpad_fast.evaluate.readers.formats import Found, Reader
from dpad_fast.rewards.config import RewardConfig
from dpad_fast.rewards.parse import find_between, parse_completion
from dpad_fast.types import Completion

PICTURE, MODEL, NORM = "picture", "model", "norm1000"


@dataclass(frozen=True)
class Format:
    """A named preset.

    Attributes:
        name: what `--format` takes.
        space: what the answer's coordinates are: pixels of the "picture", of what the "model" saw, of a (width,
            height), or "norm1000".
        preset: of `RewardConfig`, for the formats that this project rewards.
        reader: for the others.
        source: where the original reads it.
    """

    name: str
    space: str | tuple[int, int]
    preset: str | None = None
    reader: Reader | None = None
    source: str = ""


_840 = (840, 840)
_SEG_ZERO = "dvlab-research/Seg-Zero 42a3345"
DEFAULT = Format("picture", PICTURE, preset="dpad", source="dpad's tags, in pixels of the picture itself")
FORMATS: dict[str, Format] = {
    form.name: form
    for form in (
        DEFAULT,
        Format("dpad", _840, preset="dpad", source="docs/rewards.md"),
        Format("dpad-released", _840, preset="dpad-released", source="docs/rewards.md"),
        Format("seg-zero", _840, preset="seg-zero", source=f"{_SEG_ZERO}: evaluation_scripts/evaluation.py:26-52"),
        Format(
            "vision-reasoner",
            _840,
            preset="vision-reasoner",
            source=f"{_SEG_ZERO}: evaluation_scripts/evaluation_visionreasoner.py:26-47",
        ),
        Format(
            "pixelthink",
            _840,
            preset="seg-zero",
            source="songw-zju/PixelThink 052d9de: verl/utils/reward_score/seg_pixelthink.py:64-76",
        ),
        Format(
            "seg-r1",
            (1024, 1024),
            reader=formats.seg_r1,
            source="chenqiu1024/Seg-R1 ca1256f (a copy): eval/eval_reasoning_segmentation.py, parse_custom_format",
        ),
        Format(
            "vlm-r1",
            MODEL,
            reader=formats.json_boxes("bbox_2d", tags=True, number_only=True),
            source="om-ai-lab/VLM-R1 90052f4: src/open-r1-multimodal/src/open_r1/vlm_modules/qwen_module.py:93-156, "
            "src/eval/test_od_r1.py:13-25",
        ),
        Format(
            "visual-rft",
            NORM,
            reader=formats.visual_rft,
            source="Liuziyu77/Visual-RFT 9486633: src/virft/src/open_r1/grpo.py:239-257, grpo_lisa.py:122",
        ),
        Format(
            "univg-r1",
            NORM,
            reader=formats.paired(tags=True),
            source="AMAP-ML/UniVG-R1 44868ea: eval/MIG_bench/utils.py:19-58",
        ),
        Format(
            "perception-r1",
            NORM,
            reader=formats.paired("<|box_start|>", "<|box_end|>"),
            source="linkangheng/PR1 48d5558: src/open_r1/rewards.py:38-53, eval/evaluate_grounding.py:26-30,105-106",
        ),
        Format(
            "lens",
            MODEL,
            reader=formats.paired("<|box_start|>", "<|box_end|>"),
            source="hustvl/LENS 28cf510: src/open_r1/rewards.py:38-43, src/open_r1/utils.py:141-148",
        ),
        Format(
            "rex-thinker",
            MODEL,
            reader=formats.rex_thinker,
            source="IDEA-Research/Rex-Thinker 5038b47: rexthinker/scripts/reward_func.py:7-50, "
            "evaluation/eval.py:84-123",
        ),
        Format(
            "qwen3-vl",
            NORM,
            reader=formats.json_boxes("bbox_2d", tags=False),
            source="QwenLM/Qwen3-VL 9658872: cookbooks/omni_recognition.ipynb:248,286-289",
        ),
    )
}


@dataclass(frozen=True)
class Reading:
    """One completion, read.

    Attributes:
        answer: in the answer's own coordinates; `objects` for answers that are lists.
        chain: the reasoning.
        scores: confidence of each object, where the answer gives them.
        labels: one per point of `answer`, where the answer gives them.
        readable: there is something to draw, or a plain word that there is nothing.
        format_ok: the strict reading succeeds.
        lenient_ok: the tolerant one does.
        says_none: the answer names no object.
        reason: a code, where the strict reading fails.
    """

    answer: Completion
    chain: str
    scores: tuple[float | None, ...] = ()
    labels: tuple[int, ...] = ()
    readable: bool = False
    format_ok: bool = False
    lenient_ok: bool = False
    says_none: bool = False
    reason: str | None = None


def read(form: Format, text: str, geometry: str = "polygon") -> Reading:
    """Read one completion; nothing raises.

    Args:
        form: of `FORMATS`.
        text: the completion.
        geometry: "polygon" reads an answer's polygon where it has one, "box" always its box.

    Returns:
        What was found, strictly where that succeeds, else tolerantly.
    """
    if form.reader is None:
        return _read_own_format(form, text, geometry)
    strict, tolerant = form.reader(text, True), form.reader(text, False)
    found = tolerant if strict.reason is not None else strict
    answer = _as_completion(text, found, tags_ok=strict.reason != "no-tags", fields_ok=strict.reason is None)
    return Reading(
        answer=answer,
        chain=_chain(text),
        scores=tuple(score for _, score, _ in found.objects),
        labels=found.labels,
        readable=found.reason is None,
        format_ok=strict.reason is None,
        lenient_ok=tolerant.reason is None or strict.reason is None,
        says_none=found.reason is None and not found.objects,
        reason=strict.reason,
    )


def _as_completion(text: str, found: Found, tags_ok: bool, fields_ok: bool) -> Completion:
    caption = find_between(text, "caption")
    reasons = () if found.reason is None else (found.reason,)
    base = Completion(text, tags_ok, caption=caption, fields_ok=fields_ok, reasons=reasons)
    if len(found.objects) == 1:
        box, _, point = found.objects[0]
        points: Any = found.points or (None if point is None else (point,))
        return replace(base, box=box, points=points)
    return replace(
        base, objects=tuple((box, point) for box, _, point in found.objects) if found.reason is None else None
    )


def _chain(text: str) -> str:
    inside = find_between(text, "think")
    return inside if inside is not None else text.partition("<think>")[2] or text


def config_of(form: Format, geometry: str = "box") -> RewardConfig:
    """The reward configuration whose parser a format of this project uses, without terms that need an encoder."""
    config = RewardConfig.preset(form.preset or "dpad")
    terms = ("think_format", "answer_format")
    return config.replace(terms=terms, geometry=geometry) if geometry == "mask" else config.replace(terms=terms)


def _read_own_format(form: Format, text: str, geometry: str) -> Reading:
    by_box, by_polygon = _CONFIGS[form.preset or "dpad"]
    answer = parse_completion(text, by_box)
    config = by_box
    if geometry == "polygon" and by_polygon is not by_box:
        drawn = parse_completion(text, by_polygon)
        if "missing-field" not in drawn.reasons:
            # A polygon that cannot be read is an answer that cannot be read, whatever box stands beside it.
            answer, config = replace(drawn, box=None, points=None), by_polygon
    reasons = answer.reasons
    answer = _plain(answer)
    strict = answer.tags_ok and answer.fields_ok
    if not _usable(answer) and "bad-polygon" not in reasons:
        answer = _tolerant(answer, text, config, geometry)
    readable = _usable(answer)
    return Reading(
        answer=answer,
        chain=_chain(text),
        scores=(None,) * len(answer.objects or ()),
        readable=readable,
        format_ok=strict,
        lenient_ok=readable or strict,
        says_none=answer.objects is not None and not answer.objects,
        reason=next(iter(reasons), None if readable else "bad-field"),
    )


def _usable(answer: Completion) -> bool:
    return bool(answer.rings) or answer.box is not None or answer.objects is not None


def _plain(answer: Completion) -> Completion:
    """The answer with coordinates that are numbers; the released reading keeps whatever stood there."""
    objects = answer.objects
    if objects is not None:
        read = tuple((scan.box_of(box), scan.point_of(point)) for box, point in objects)
        # One object that has no box leaves the others; a list of such objects is not read, an empty one says "none".
        objects = tuple(pair for pair in read if pair[0] is not None) or (None if read else ())
    points = None if answer.points is None else tuple(map(scan.point_of, answer.points))
    whole: Any = points if points is not None and all(point is not None for point in points) else None
    return replace(answer, box=scan.box_of(answer.box), points=whole, objects=objects)


def _tolerant(answer: Completion, text: str, config: RewardConfig, geometry: str) -> Completion:
    """What stands in sloppy JSON, as the strict parser reads it once it is written properly."""
    inside = scan.answer_of(text)
    value = scan.load_tolerantly(scan.after_thinking(text) if inside is None else inside)
    objects = config.answer == "objects"
    rows = [value] if isinstance(value, dict) else value
    if isinstance(rows, list) and scan.box_of(rows) is not None:
        rows = [{_KEY[objects]: rows}]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or (not objects and len(rows) != 1):
        return answer
    rows = [{_KEY[objects] if key in _BOX_KEYS else key: item for key, item in row.items()} for row in rows]
    if geometry == "polygon" and not objects and "polygon" in rows[0]:
        config = _CONFIGS["dpad"][1]
    written = json.dumps(rows if objects else rows[0])
    again = _plain(parse_completion(f"<think></think><answer>{written}</answer>", config))
    box = None if again.rings else again.box
    return replace(answer, box=box, points=again.points, rings=again.rings, objects=again.objects)


_KEY = {True: "bbox_2d", False: "bbox"}
_BOX_KEYS = ("bbox", "bbox_2d", "box")
_CONFIGS = {
    name: (config_of(Format(name, PICTURE, preset=name)), config_of(Format(name, PICTURE, preset=name), "mask"))
    for name in ("dpad", "dpad-released", "seg-zero")
}
_CONFIGS["vision-reasoner"] = (config_of(Format("vision-reasoner", PICTURE, preset="vision-reasoner")),) * 2
