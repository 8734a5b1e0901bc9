"""Protocols of mask evaluation: how ignored pixels, empty unions, unreadable answers and later queries count.

Each protocol is data; `judge` applies one. The rules are those of the projects' own code; `source` names the place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpad_fast.types import BoolMask

THRESHOLDS = (0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Protocol:
    """One set of rules.

    Attributes:
        name: what `--protocol` takes.
        ignored: pixels of undecided annotation: "drop" leaves them out of both sides, "target" and "background" count
            them as such.
        empty: IoU where neither mask has a pixel and the answer was read: "one"; "zero"; "drop" leaves the sample out;
            "none-said" is 1 for an answer that names no object, else 0.
        unreadable: an answer that cannot be read: "zero" is IoU 0 with the truth's area in the union; "empty" is the
            empty mask.
        mismatch: a mask of another size than the truth: "error" or "drop".
        epsilon: added to each union under gIoU.
        total_epsilon: added to the sum of unions under cIoU.
        first_query: only the first query of a picture counts.
        reading: reader of this project's own for completions (`readers.released`); None: the chosen format's.
        targeted: P@ is over samples that have a target, as GRES counts it; else over all.
        source: repository, commit, file and lines.
    """

    name: str
    ignored: str = "drop"
    empty: str = "one"
    unreadable: str = "zero"
    mismatch: str = "error"
    epsilon: float = 0.0
    total_epsilon: float = 0.0
    first_query: bool = False
    reading: str | None = None
    targeted: bool = False
    source: str = ""


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("strict", source="this project"),
        Protocol(
            "lisa",
            unreadable="empty",
            epsilon=1e-5,
            total_epsilon=1e-10,
            first_query=True,
            source="dvlab-research/LISA 3cb2d43: train_ds.py:550-573, utils/utils.py:116-129",
        ),
        Protocol(
            "released",
            ignored="target",
            empty="drop",
            mismatch="drop",
            first_query=True,
            reading="released",
            source="spec of the DPAD evaluation; its kin dvlab-research/Seg-Zero 42a3345: "
            "evaluation_scripts/evaluation.py:26-59,156-190, create_reasonseg_hf.py:60,118",
        ),
        Protocol(
            "seg-zero",
            ignored="target",
            empty="drop",
            mismatch="drop",
            first_query=True,
            reading="seg-zero",
            source="dvlab-research/Seg-Zero 42a3345: evaluation_scripts/evaluation.py:26-59,156-190, "
            "calculate_iou.py:29-42, create_reasonseg_hf.py:60,118",
        ),
        Protocol(
            "lens",
            ignored="background",
            unreadable="empty",
            epsilon=1e-5,
            total_epsilon=1e-8,
            first_query=True,
            source="hustvl/LENS 28cf510: eval/evaluate_reasonseg.py:129,140-141,215-244,274-276, eval/utils.py:76-89",
        ),
        Protocol(
            "vision-reasoner",
            ignored="target",
            empty="none-said",
            first_query=True,
            source="JIA-Lab-research/VisionReasoner c013132: evaluation/evaluation_segmentation.py:34-39,166-223, "
            "evaluation/calculate_iou_with_bbox_nonobj.py:43-79",
        ),
        Protocol(
            "gres",
            ignored="background",
            targeted=True,
            source="henghuiding/ReLA 3ca9551: gres_model/evaluation/refer_evaluation.py:126-217",
        ),
    )
}


@dataclass(frozen=True)
class Areas:
    """Numbers of pixels of one truth and one prediction: all that a protocol needs."""

    truth: int
    ignored: int
    predicted: int
    on_truth: int
    on_ignored: int


@dataclass(frozen=True)
class SampleIou:
    """Intersection, union and IoU of one sample under one protocol."""

    intersection: int
    union: int
    iou: float


def areas(predicted: BoolMask | None, target: BoolMask, ignore: BoolMask | None = None) -> Areas:
    """Count the pixels that the protocols need; an ignored pixel does not belong to the target.

    Args:
        predicted: bool [H, W]; None is an empty mask.
        target: bool [H, W].
        ignore: bool [H, W] or None.

    Returns:
        The counts.

    Raises:
        ValueError: the shapes differ.
    """
    for name, mask in (("predicted", predicted), ("ignore", ignore)):
        if mask is not None and mask.shape != target.shape:
            raise ValueError(f"{name} has shape {mask.shape}, target has {target.shape}")
    count = np.count_nonzero
    if ignore is not None:
        target = target & ~ignore
    if predicted is None:
        return Areas(int(count(target)), 0 if ignore is None else int(count(ignore)), 0, 0, 0)
    return Areas(
        truth=int(count(target)),
        ignored=0 if ignore is None else int(count(ignore)),
        predicted=int(count(predicted)),
        on_truth=int(count(predicted & target)),
        on_ignored=0 if ignore is None else int(count(predicted & ignore)),
    )


def judge(
    protocol: Protocol,
    found: Areas,
    *,
    readable: bool = True,
    later: bool = False,
    missing: bool = False,
    says_none: bool = False,
    fits: bool = True,
) -> SampleIou | None:
    """One sample under one protocol.

    Args:
        protocol: the rules.
        found: pixels of truth and prediction.
        readable: the answer could be read (always, for masks).
        later: the sample is not its picture's first query.
        missing: the sample has no prediction, which counts as 0.
        says_none: the answer names no object.
        fits: the mask has the truth's size.

    Returns:
        The counts and the IoU; None where the protocol leaves the sample out.
    """
    if (later and protocol.first_query) or not (fits or protocol.mismatch == "error"):
        return None
    shared, union = _overlap(protocol.ignored, found)
    if missing or (not readable and protocol.unreadable == "zero"):
        truth = found.truth + (found.ignored if protocol.ignored == "target" else 0)
        return SampleIou(0, truth, 0.0)
    if union == 0:
        if protocol.empty == "drop":
            return None
        one = protocol.empty == "one" or (protocol.empty == "none-said" and says_none)
        return SampleIou(0, 0, float(one))
    return SampleIou(shared, union, shared / (union + protocol.epsilon))


def _overlap(ignored: str, found: Areas) -> tuple[int, int]:
    if ignored == "target":
        shared = found.on_truth + found.on_ignored
        return shared, found.predicted + found.truth + found.ignored - shared
    predicted = found.predicted - found.on_ignored if ignored == "drop" else found.predicted
    return found.on_truth, predicted + found.truth - found.on_truth
