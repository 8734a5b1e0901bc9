"""Rows without a score in the forms of OpenRLHF and slime: refused, or the lowest reward where the address says so."""

import json

import pytest

from dpad_fast.testing import rewards as shared
from dpad_fast.testing.faulty_rows import expected_totals, faulty_rows
from dpad_fast.testing.serving import ask, request


@pytest.fixture
def rows(root):
    folder = root / "faulty"
    folder.mkdir(exist_ok=True)
    return faulty_rows(folder)


def post(running, path, body):
    status, _, answer = ask(running.port, request("POST", path, json.dumps(body).encode()))
    return status, json.loads(answer)


def openrlhf(rows, labels):
    prompts = ["Where is it?\n"] * len(rows)
    queries = [prompt + row.completion for prompt, row in zip(prompts, rows, strict=True)]
    return {"query": queries, "prompts": prompts, "labels": labels}


def test_openrlhf(running, scorer, rows):
    body = openrlhf(rows, [row.label() for row in rows])
    wanted = expected_totals(scorer, rows)
    status, answer = post(running, "/openrlhf", body)
    assert status == 422
    assert answer["error"].startswith("4 of 7 rows cannot be scored: bad-image: images[3] cannot be opened")
    status, answer = post(running, "/openrlhf?unscored=lowest", body)
    assert (status, answer["rewards"]) == (200, [total or 0.0 for total in wanted])
    assert answer["extra_logs"]["dpad/unscored"] == [float(total is None) for total in wanted]
    assert len(set(map(len, answer["extra_logs"].values()))) == 1


def test_slime(running, scorer, rows):
    for row, total in zip(rows, expected_totals(scorer, rows), strict=True):
        body = {"prompt": "Where is it?", "response": row.completion + "<|im_end|>", "label": json.dumps(row.label())}
        assert post(running, "/slime?unscored=lowest", body) == (200, total or 0.0)
        assert post(running, "/slime", body)[0] == (200 if row.scored else 422)


@pytest.mark.parametrize("label", [None, "{", "nothing to read", {"solution": shared.SOLUTION}, {"image": "x"}, 5])
def test_labels_that_cannot_be_read(running, scorer, rows, label):
    good = rows[:1]
    body = openrlhf(good * 3, [good[0].label(), label, good[0].label()])
    assert post(running, "/openrlhf", body)[0] == 422
    total = expected_totals(scorer, good)[0]
    status, answer = post(running, "/openrlhf?unscored=lowest", body)
    assert (status, answer["rewards"]) == (200, [total, 0.0, total])


def test_a_query_without_its_prompt(running, scorer, rows):
    body = openrlhf(rows[:1] * 2, [rows[0].label()] * 2)
    body["query"][0] = "something else"
    assert post(running, "/openrlhf", body)[0] == 422
    answer = post(running, "/openrlhf?unscored=lowest", body)[1]
    assert answer["rewards"] == [0.0, expected_totals(scorer, rows[:1])[0]]


def test_what_is_refused_all_the_same(running, rows):
    outside = {"solution": shared.SOLUTION, "image": "/etc/passwd"}
    assert post(running, "/openrlhf?unscored=lowest", openrlhf(rows[:1], [outside]))[0] == 403
    status, answer = post(running, "/slime?unscored=zero", {"response": "x", "label": shared.SOLUTION})
    assert (status, answer["error"]) == (422, "unscored must be refuse (as without it) or lowest, got 'zero'")
