"""What tests of the documentation share: a page's code blocks, and what its Python says that it prints."""

from __future__ import annotations

import contextlib
import io
import re
import tokenize
from typing import Any, NamedTuple


class Ran(NamedTuple):
    """A Python block that was run.

    Attributes:
        code: the block.
        printed: the lines that it printed.
        promised: the lines that its comments say.
    """

    code: str
    printed: list[str]
    promised: list[str]


def blocks(page: str, language: str = "") -> list[str]:
    """The code blocks of a page.

    Args:
        page: its Markdown.
        language: what the fence names, such as "python"; empty: fences that name nothing.
    """
    found = re.findall(r"^```(\w*)\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    return [code for kind, code in found if kind == language]


def promised(code: str, *, joined: bool = False) -> list[str]:
    """The comments that stand alone: what the code above them prints.

    Args:
        code: Python.
        joined: comments on neighbouring lines are one printed line, which the page has broken.
    """
    found: list[str] = []
    last = -1
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type != tokenize.COMMENT or token.line[: token.start[1]].strip():
            continue
        text, row = token.string[2:], token.start[0]
        if joined and row == last + 1:
            found[-1] += f" {text}"
        else:
            found.append(text)
        last = row
    return found


def run_python(page: str, *, joined: bool = False) -> list[Ran]:
    """Runs a page's Python blocks in order, with the names of those before.

    Args:
        page: its Markdown.
        joined: see `promised`.
    """
    names: dict[str, Any] = {}
    ran = []
    for code in blocks(page, "python"):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, names)  # the page's own text, on purpose
        ran.append(Ran(code, printed.getvalue().splitlines(), promised(code, joined=joined)))
    return ran
