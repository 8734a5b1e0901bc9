"""docs/data-forms.md prints what it says."""

from pathlib import Path

from dpad_fast.testing import pages

PAGE = Path(__file__).parents[1] / "docs" / "data-forms.md"


def test_every_block_prints_what_its_comments_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = pages.run_python(PAGE.read_text(encoding="utf-8"))
    assert [block.printed for block in ran] == [block.promised for block in ran]
    assert sum(len(block.promised) for block in ran) >= 6
