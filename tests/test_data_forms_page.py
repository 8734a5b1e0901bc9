"""docs/data-forms.md prints what it says."""

import contextlib
import io
import re
import tokenize
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "data-forms.md"


def promised(code):
    """Comments that stand alone: what the lines above them print."""
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    return [t.string[2:] for t in tokens if t.type == tokenize.COMMENT and not t.line[: t.start[1]].strip()]


def test_every_block_prints_what_its_comments_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    space = {}
    for block in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(block, space)  # the page's own text, on purpose
        assert printed.getvalue().splitlines() == promised(block)
    assert sum(len(promised(block)) for block in blocks) >= 6
