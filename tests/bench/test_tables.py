"""The tables in docs/ are what the CSV files say, and the CSV writer writes what it is given."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    from bench import registry, results, tables
    from bench.gpu import outcome

    class Modules:
        pass

    found = Modules()
    found.registry, found.results, found.tables = registry, results, tables  # type: ignore[attr-defined]
    found.outcome = outcome  # type: ignore[attr-defined]
    return found


def test_documents_show_what_was_measured(bench: Any) -> None:
    shown = ""
    for document in sorted((ROOT / "docs").glob("*.md")):
        text = document.read_text(encoding="utf-8")
        assert bench.tables.rewritten(text) == text, f"{document.name}: run python -m bench.tables"
        shown += text
    # Every file of results is in some document, and no table is asked for that nobody makes.
    sources = {bench.tables.TABLES[name][0] for name in bench.tables.TABLES if f"<!-- table: {name} -->" in shown}
    files = {file.stem for file in bench.results.FOLDER.glob("*.csv")}
    assert files <= sources
    assert sources - files <= set(bench.tables.LATER)


def test_a_number_that_was_typed_is_found(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    monkeypatch.setattr(bench.tables, "DOCS", tmp_path / "docs")
    assert bench.tables.main(["--check"]) == 0
    page = tmp_path / "docs" / "ops-masks.md"
    honest = page.read_text(encoding="utf-8")
    row = next(line for line in honest.splitlines() if line.startswith("| paired IoU, dense | **dpad_fast**"))
    page.write_text(honest.replace(row, row.replace("equal", "faster")), encoding="utf-8")
    assert bench.tables.main(["--check"]) == 1
    assert bench.tables.main([]) == 0
    assert page.read_text(encoding="utf-8") == honest


def test_tables_of_made_up_numbers(bench: Any) -> None:
    def row(case: str, threads: int, provider: str, kind: str, p50: float, goals: str = "") -> dict[str, str]:
        return {
            "case": case, "threads": str(threads), "provider": provider, "kind": kind, "agreement": "equal",
            "first_ms": str(2 * p50), "p50_ms": str(p50), "ratio": str(p50 / 2.0), "goals": goals,
        }  # fmt: skip

    rows = [
        row("draw", 1, "ours", "ours", 2.0, "exact:3 any:2"),
        row("draw", 1, "slow", "exact", 20.0),
        row("draw", 1, "rough", "close", 5.0),
        row("draw", 1, "none of it", "other", 0.5),
        row("draw", 2, "ours", "ours", 2.0, "exact:3 any:2"),
        row("draw", 2, "slow", "exact", 8.0),
        row("draw", 2, "rough", "close", 10.0),
        row("draw", 2, "none of it", "other", 0.5),
    ]
    assert bench.tables.goals(rows).splitlines()[2:] == [
        "| draw | 3x the fastest that agrees to the bit | slow | 10.0 / 4.0 |",
        "| draw | 2x the fastest of all | rough, slow | 2.5 / 4.0 |",
    ]
    assert bench.tables.times(rows).splitlines()[2:4] == [
        "| draw | **ours** | equal | 2.00 | 4.00 | 2.00 | 4.00 |",
        "|  | slow | equal | 20.0 | 40.0 | 8.00 | 16.0 |",
    ]
    with pytest.raises(ValueError, match="no table is called 'mask'"):
        bench.tables.rewritten("<!-- table: mask -->\n<!-- /table -->")
    with pytest.raises(ValueError, match="opened and not closed"):
        bench.tables.rewritten("<!-- table: masks -->\n")


def test_results_are_written_as_given(bench: Any, tmp_path: Path) -> None:
    rows = [{"case": 'a, "b"', "ms": 1.5}, {"case": "c\nd", "ms": ""}]
    path = bench.results.write("some", rows, tmp_path)
    assert path.read_bytes() == b'case,ms\n"a, ""b""",1.5\n"c\nd",\n'
    assert bench.results.read("some", tmp_path) == [{"case": 'a, "b"', "ms": "1.5"}, {"case": "c\nd", "ms": ""}]
    with pytest.raises(ValueError, match=r"some: rows\[1\] has the columns \['case'\]"):
        bench.results.write("some", [rows[0], {"case": "e"}], tmp_path)
    with pytest.raises(ValueError, match="there are no rows"):
        bench.results.write("some", [], tmp_path)
    assert bench.results.read("some", tmp_path)[0]["ms"] == "1.5"


def regrouped(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Results as a run writes them since contestants take turns in two groups."""
    more = {"thread_ms": "7.00", "process_ms": "9.00", "collections": "2"}
    goals = [row | more | {"group": "goals", "turns": "25"} for row in rows[:2]]
    others = [row | more | {"group": "others", "turns": "3", "parse_ms": "2.00"} for row in rows[:2]]
    others[0]["p50_ms"], others[1]["p50_ms"], others[1]["contestant"] = "16.00", "160.00", "open_clip, float16"
    return [*goals, *others]


def test_tables_of_a_gpu(bench: Any, tmp_path: Path) -> None:
    empty = "<!-- table: {0} -->\n<!-- /table -->"
    for name in ("reward-gpu", "reward-gpu-stages", "gpu"):
        assert "**Not measured yet.**" in bench.tables.rewritten(empty.format(name), tmp_path)
    predicted = bench.tables.rewritten(empty.format("gpu-prediction"), tmp_path)
    assert predicted.count("not measured yet") == len(bench.outcome.rows_in(bench.outcome.PREDICTION))
    day = {"device": "H", "driver": "580", "torch": "2.11", "date": "2026-12-01"}
    facts = dict.fromkeys(bench.tables._REWARD_GPU, "3") | {f"{stage}_ms": "1.00" for stage in bench.tables._STAGES}
    facts |= {"turns": "4"}
    rows = [
        {"contestant": "dpad_fast guarded", "pictures": "PIL", "p50_ms": "8.00"} | facts | day,
        {"contestant": "transformers, float16, GPU pixels", "pictures": "PIL", "p50_ms": "90.00"} | facts | day,
        {"contestant": "one at a time", "pictures": "PIL", "p50_ms": ""} | dict.fromkeys(facts, "") | day,
    ]
    bench.results.write("reward-gpu", rows, tmp_path)
    made = bench.tables.rewritten(empty.format("reward-gpu"), tmp_path)
    assert "| **dpad_fast guarded** | PIL | 8.00 | 4 | 1.00 | 3 | 3 |" in made
    assert "| transformers, float16, GPU pixels | PIL | 90.0 | 4 | 11.25 | 3 |" in made
    assert "| one at a time | PIL |  |  |  |" in made
    assert "H, driver 580, torch 2.11, 2026-12-01." in made
    assert "one at a time" not in bench.tables.rewritten(empty.format("reward-gpu-stages"), tmp_path)
    predicted = bench.tables.rewritten(empty.format("gpu-prediction"), tmp_path)
    assert "| dpad_fast guarded, PIL: p50 ms | 7 to 13 | 8 | as predicted |" in predicted
    assert "| transformers, float16, GPU pixels, PIL: p50 ms | 20 to 45 | 90 | 2.0x the upper end |" in predicted
    assert "| dpad_fast guarded, PIL: launches | 10 to 150 | 3 | 3.3x below the lower end |" in predicted
    grouped = regrouped(rows)
    bench.results.write("reward-gpu", grouped, tmp_path)
    made = bench.tables.rewritten(empty.format("reward-gpu"), tmp_path)
    heads = "| group | ms | turns | times guarded's | thread ms | process ms | collections | wrong |"
    assert f"| contestant | pictures {heads}" in made
    for line in (
        "| **dpad_fast guarded** | PIL | goals | 8.00 | 25 | 1.00 | 7.00 | 9.00 | 2 | 3 |",
        "| transformers, float16, GPU pixels | PIL | goals | 90.0 | 25 | 11.25 | 7.00 | 9.00 | 2 | 3 |",
        "| **dpad_fast guarded** | PIL | others | 16.0 | 3 | 1.00 | 7.00 | 9.00 | 2 | 3 |",
        "| open_clip, float16 | PIL | others | 160 | 3 | 10.00 | 7.00 | 9.00 | 2 | 3 |",  # guarded's of its own group
    ):
        assert line in made
    stages = bench.tables.rewritten(empty.format("reward-gpu-stages"), tmp_path)
    assert stages.count("| dpad_fast guarded | PIL |") == 1
    assert "| dpad_fast guarded | PIL | 1.00 |" in stages  # the first group's
    predicted = bench.tables.rewritten(empty.format("gpu-prediction"), tmp_path)
    assert "| dpad_fast guarded, PIL: p50 ms | 7 to 13 | 8 | as predicted |" in predicted  # the first group's
    op = {
        "op": "masks",
        "case": "c",
        "provider": "ours",
        "kind": "ours",
        "agreement": "equal",
        "note": "",
        "ratio": "1.000",
    }
    times = {"p50_us": "50.00", "warm_us": "40.00", "graph_us": ""}
    bench.results.write("gpu", [op | times | day], tmp_path)
    made = bench.tables.rewritten(empty.format("gpu"), tmp_path)
    assert "| masks: c | **ours** | equal | 50.0 | 40.0 |  | 1.000 |" in made
