"""The rule of the ablations on made-up numbers: agrees, disagrees, cannot be told; and that chance seldom decides."""

import math

import numpy as np
import pytest

from dpad_fast.demo.ablations import outcome, rule, tables
from dpad_fast.demo.ablations.arms import ARMS, Claim
from dpad_fast.demo.ablations.outcome import Runs
from dpad_fast.demo.ablations.rule import AGREES, DISAGREES, OPEN, Interval

SEEDS = np.array([0.30, 0.34, 0.26])  # what seeds have in common, which pairing takes out


@pytest.mark.parametrize(
    ("says", "low", "high", "expected"),
    [
        ("higher", 0.001, 0.5, AGREES),
        ("higher", -0.001, 0.5, OPEN),
        ("higher", -0.5, 0.02, DISAGREES),  # it leaves out any difference that matters
        ("higher", -0.5, -0.1, DISAGREES),
        ("lower", -0.5, -0.001, AGREES),
        ("lower", -0.5, 0.001, OPEN),
        ("lower", -0.02, 0.5, DISAGREES),
        ("same", -0.02, 0.02, AGREES),
        ("same", 0.01, 0.02, AGREES),  # surely not zero, and none that matters
        ("same", -0.02, 0.04, OPEN),
        ("same", 0.03, 0.5, DISAGREES),
        ("same", -0.5, -0.031, DISAGREES),
        ("same", -math.inf, math.inf, OPEN),
    ],
)
def test_verdicts(says, low, high, expected):
    assert rule.verdict(says, Interval((low + high) / 2 if math.isfinite(low) else 0.0, low, high, 3), 0.03) == expected


def test_without_numbers_nothing_is_told():
    assert rule.verdict("same", Interval(math.nan, -math.inf, math.inf, 0), 0.03) == OPEN
    with pytest.raises(ValueError, match="says must be higher, lower or same, got 'better'"):
        rule.verdict("better", Interval(0.0, 0.0, 0.0, 3), 0.03)


def test_students_t():
    """Two-sided 95 % quantiles of the tables, and one far out."""
    known = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 7: 2.365, 10: 2.228, 15: 2.131, 30: 2.042}
    for degrees, quantile in known.items():
        assert rule.student_t(0.95, degrees) == pytest.approx(quantile, abs=5e-4)
    assert rule.student_t(1 - 0.05 / 30, 2) == pytest.approx(24.46, abs=0.01)


def test_pairing_takes_out_what_seeds_share_and_a_noisy_row_has_its_own_spread():
    rng = np.random.default_rng(0)
    quiet = {f"arm {i}": SEEDS + 0.001 * rng.normal(size=3) for i in range(8)}
    found = rule.intervals({"dpad": SEEDS, **quiet, "noisy": SEEDS + np.array([0.0, 0.3, 0.6])}, "dpad", 10)
    assert set(found) == {*quiet, "noisy"}
    narrow = found["arm 0"].high - found["arm 0"].low
    wide = found["noisy"].high - found["noisy"].low
    assert found["noisy"].value == pytest.approx(0.3)
    t = rule.student_t(1 - 0.05 / 10, 9 * 2)
    assert wide == pytest.approx(2 * t * 0.3 / math.sqrt(3))
    assert narrow < wide  # the pooled one, which the noisy arm raises
    alone = rule.intervals({"dpad": SEEDS, "arm 0": quiet["arm 0"]}, "dpad", 10)["arm 0"]
    assert alone.high - alone.low < 0.1


def test_rows_may_have_more_seeds_than_others():
    five = np.concatenate([SEEDS, [0.2, 0.4]])
    found = rule.intervals({"dpad": five, "more": five + 0.1, "three": SEEDS + 0.1}, "dpad", 1)
    assert (found["more"].seeds, found["three"].seeds) == (5, 3)
    assert found["more"].value == pytest.approx(0.1)


def test_one_seed_has_no_interval():
    (found,) = rule.intervals({"dpad": [0.3], "arm": [0.1]}, "dpad", 1).values()
    assert found == Interval(pytest.approx(-0.2), -math.inf, math.inf, 1)
    assert rule.verdict("lower", found, 0.03) == OPEN


@pytest.mark.parametrize(
    ("spreads", "most"), [([1.0] * 10, 0.05), ([1.0] * 8 + [3.0] * 2, 0.09)], ids=["equal", "two-noisy"]
)
def test_chance_seldom_makes_a_verdict(spreads, most):
    """Ten arms that do not differ, 3 seeds: how often any of the nine differences is called one."""
    rng, wrong, tables_made = np.random.default_rng(1), 0, 400
    for _ in range(tables_made):
        shared = rng.normal(size=3)
        values = {str(i): shared + rng.normal(size=3) * spread for i, spread in enumerate(spreads)}
        wrong += any(gap.low > 0 or gap.high < 0 for gap in rule.intervals(values, "0", 9).values())
    assert wrong / tables_made <= most


def test_spread_is_how_far_a_seed_lies_from_the_others():
    assert rule.spread([[0.0] * 9, [0.0] * 9, [0.6] * 9]) == pytest.approx([0.3, 0.3, 0.6])
    assert rule.spread([[0.0, 1.0] * 6, [1.0, 0.0] * 6], window=2) == pytest.approx([0.0, 0.0])
    assert rule.spread([[1.0], [3.0]]) == pytest.approx([2.0, 2.0])
    assert all(map(math.isnan, rule.spread([[1.0, 2.0]])))


def run(ciou, tokens=20.0, curve=(0.5,) * 8):
    after = {"chain_tokens": tokens, "giou": ciou, "ciou": ciou, "s1_wins": 0.5, "format": 0.9}
    known = {key: {"value": float(value), "error": 0.01, "units": 9} for key, value in after.items()}
    return {"after": known, "history": [{"step": i, "rewards/iou/mean": v} for i, v in enumerate(curve)]}


def made_up():
    """E: geometry is surely worse in cIoU, its chains are surely as long, and SigLIP's cIoU may be anything."""
    rng = np.random.default_rng(2)

    def arm(ciou, tokens, noise=0.002):
        return [run(s + ciou + noise * n, tokens + 0.1 * n) for s, n in zip(SEEDS, rng.normal(size=3), strict=True)]

    results = {("E", "dpad"): arm(0.0, 20.0), ("E", "geometry"): arm(-0.2, 20.0), ("E", "siglip"): arm(0.0, 20.0, 0.03)}
    return Runs(results, {}, {})


def test_the_table_says_agrees_disagrees_and_cannot_be_told():
    rows = outcome.rows(made_up())
    assert [row["arm"] for row in rows] == ["dpad", "geometry", "siglip"]
    said = {(row["arm"], claim["metric"]): claim["verdict"] for row in rows for claim in row["claims"]}
    assert said == {
        ("geometry", "chain_tokens"): DISAGREES,
        ("geometry", "ciou"): AGREES,
        ("siglip", "chain_tokens"): AGREES,
        ("siglip", "ciou"): OPEN,
    }
    table = tables.whole(rows, "Every arm")
    geometry = dict(zip(table.heading, table.rows[1], strict=True))
    assert geometry["verdict"] == "chain tokens: disagrees; cIoU: agrees"
    assert geometry["cIoU"].endswith("(-0.199)")
    assert table.rows[0][-1] == "-"
    assert "corrected for the 4 claims" in " ".join(table.notes)
    assert tables.counted(rows) == "Of 4 claims 2 agree, 1 disagrees, 1 cannot be told."
    measured = dict(zip(tables.claims(rows, "").heading, tables.claims(rows, "").rows[1], strict=True))
    assert measured["arm minus R_dpad"].startswith("-0.199 [-0.")


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        ([AGREES], "Of 1 claim 1 agrees, 0 disagree, 0 cannot be told."),
        ([AGREES] * 5 + [DISAGREES, OPEN], "Of 7 claims 5 agree, 1 disagrees, 1 cannot be told."),
        ([DISAGREES] * 2 + [OPEN] * 3, "Of 5 claims 0 agree, 2 disagree, 3 cannot be told."),
    ],
)
def test_verdicts_are_counted_in_a_sentence(verdicts, said):
    assert tables.counted([{"claims": [{"verdict": verdict} for verdict in verdicts]}]) == said


def test_what_the_paper_rests_on_is_run_with_more_seeds():
    runs = made_up()
    assert outcome.undecided(runs) == []
    noisy = [run(value, 20.0) for value in (0.1, 0.5, 0.3)]
    runs = Runs({**runs.results, ("E", "geometry"): noisy}, {}, {})
    assert outcome.undecided(runs) == [("E", "geometry")]  # not SigLIP's, on which nothing rests


def test_every_claim_can_be_judged():
    claims = [claim for arm in ARMS for claim in arm.claims]
    assert all(isinstance(claim, Claim) and claim.metric in rule.MATTERS for claim in claims)
    assert {claim.says for claim in claims} == {"higher", "lower", "same"}
