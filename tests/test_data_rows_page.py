"""docs/data-rows.md prints what it says."""

import contextlib
import io
import re
import tokenize
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "data-rows.md"


def promised(code):
    """Comments that stand alone: each is one line that the code above it prints."""
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    return [token.string[2:] for token in tokens if token.type == tokenize.COMMENT]


def test_every_block_prints_what_its_comments_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    space = {}
    for block in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(block, space)  # the page's own text, on purpose
        assert printed.getvalue().splitlines() == promised(block)
    assert sum(len(promised(block)) for block in blocks) >= 11
