"""Reason codes: why a completion has a term that is zero. docs/rewards.md lists them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# Faults of the text itself, whatever the ground truth and the picture; `reason in MALFORMED` counts them.
MALFORMED = frozenset(
    {
        "no-tags",
        "no-json",
        "bad-json",
        "missing-field",
        "bad-field",
        "non-finite",
        "bad-box",
        "bad-polygon",
        "no-objects",
        "no-caption",
        "empty-caption",
        "too-long",
        "bad-text",
    }
)

# Well-formed completions whose terms are zero, by the terms that each code explains; the first code found stands.
_ZEROS = {
    "wrong-place": ("iou", "box_l1", "point_l1", "mask_iou", "accuracy"),
    "not-discriminative": ("discriminative",),
    "repeats": ("non_repeat",),
}


def explain_zeros(columns: Mapping[str, Sequence[float]], reasons: list[str | None], terms: Sequence[str]) -> None:
    """Gives a reason to each completion that has a zero term and no reason yet.

    Args:
        columns: one value per completion and term.
        reasons: one code or None per completion; changed in place.
        terms: the terms of the configuration.
    """
    for code, names in _ZEROS.items():
        for name in names:
            if name in terms:
                for i, value in enumerate(columns[name]):
                    if value == 0 and reasons[i] is None:
                        reasons[i] = code


def reason_of_zero(term: str, reason: str | None) -> str | None:
    """Why a term is zero, where only the completion's first reason is known.

    Args:
        term: its name.
        reason: the completion's, or None.

    Returns:
        The completion's reason where that is about its text; else the code for this term; None where there is none.
    """
    if reason is not None and reason not in _ZEROS:
        return reason
    return next((code for code, names in _ZEROS.items() if term in names), None)
