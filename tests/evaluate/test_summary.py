"""cIoU where no pixel is in any union: alone, and as a difference to a run that has one."""

import pytest

from dpad_fast.evaluate import summary


def run_of(*verdicts):
    whole = {"reason": None, "truth_empty": True, "predicted_empty": True, "format_ok": None, "lenient_ok": None}
    whole |= {"s1": None, "s2": None, "chain_tokens": None}
    rows = [{"id": str(i), "protocols": {"strict": verdict}} for i, verdict in enumerate(verdicts)]
    return summary.count((whole | row for row in rows), ("strict",))


EMPTY, UNREADABLE, WRONG = [0, 0, 1.0], [0, 0, 0.0], [0, 9, 0.0]


@pytest.mark.parametrize(
    ("verdicts", "ciou"), [((EMPTY, EMPTY), 1), ((UNREADABLE, UNREADABLE), 0), ((EMPTY, WRONG), 0)]
)
def test_alone(verdicts, ciou):
    found = summary.estimates(run_of(*verdicts))["strict"]["cIoU"]
    assert found.value == ciou


@pytest.mark.parametrize(
    ("mine", "other", "gain"), [(EMPTY, WRONG, 1), (WRONG, EMPTY, -1), (EMPTY, EMPTY, 0), (EMPTY, UNREADABLE, 1)]
)
def test_as_a_difference(mine, other, gain):
    found = summary.compare(run_of(mine, mine), run_of(other, other))["strict"]
    assert (found["cIoU"].value, found["gIoU"].value) == (gain, gain)
