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

    class Modules:
        pass

    found = Modules()
    found.registry, found.results, found.tables = registry, results, tables  # type: ignore[attr-defined]
    return found


def test_documents_show_what_was_measured(bench: Any) -> None:
    shown = ""
    for document in sorted((ROOT / "docs").glob("*.md")):
        text = document.read_text(encoding="utf-8")
        assert bench.tables.rewritten(text) == text, f"{document.name}: run python -m bench.tables"
        shown += text
    # Every file of results is in some document, and no table is asked for that nobody makes.
    sources = {bench.tables.TABLES[name][0] for name in bench.tables.TABLES if f"<!-- table: {name} -->" in shown}
    assert sources == {file.stem for file in bench.results.FOLDER.glob("*.csv")}


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
