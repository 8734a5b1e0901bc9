"""The README's example runs as printed, and its links lead somewhere."""

import contextlib
import io
import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_scoring_example_prints_what_it_says():
    [example] = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(example.strip().splitlines()) <= 12
    *_, promised = re.findall(r"print\(.*\)  # (.*)", example)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(example, {})  # the README's own text, on purpose
    assert printed.getvalue().strip() == promised


def test_links_lead_to_files():
    targets = re.findall(r"\]\(([^)]+)\)", README.read_text())
    local = [target for target in targets if not target.startswith("http")]
    assert local
    assert not [target for target in local if not (README.parent / target).exists()]


def test_it_opens_with_the_two_commands():
    first = README.read_text().split("```")[1]
    assert [line.split("#")[0].strip() for line in first.strip().splitlines()[1:]] == ["make demo", "make test"]
