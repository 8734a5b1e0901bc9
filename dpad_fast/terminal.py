"""What the command line writes and reads: UTF-8 everywhere, and no control character of a user's text."""

from __future__ import annotations

import re
import sys
from typing import TextIO

# Escape sequences can repaint a terminal; separators break lines; marks of direction reorder what is around them; lone
# surrogates (bytes of a file's name that are no UTF-8) cannot be written at all.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    r"""Text in one line, with control characters and lone surrogates written as escapes, such as `\x1b`.

    Args:
        text: anything; a file's name, an id, a model's words.

    Returns:
        Its text, safe to print.
    """
    return _UNSAFE.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), str(text))


def say(text: str, *, quiet: bool = False, file: TextIO | None = None) -> None:
    """Print lines, each of them `printable`.

    Args:
        text: lines.
        quiet: print nothing.
        file: standard output when None.
    """
    if not quiet:
        print("\n".join(map(printable, text.split("\n"))), file=file, flush=True)


def use_utf8() -> None:
    """Write and read UTF-8, whatever the locale says: elsewhere "±" cannot be printed, and bytes become surrogates."""
    for stream, errors in ((sys.stdout, "strict"), (sys.stderr, "backslashreplace")):
        reconfigure = getattr(stream, "reconfigure", None)  # a notebook's stream has none
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors=errors)


def read_stdin() -> bytes:
    """All of standard input, as bytes: the locale has no say in what they mean."""
    raw = getattr(sys.stdin, "buffer", None)  # None where a test or a notebook put a text stream in its place
    return sys.stdin.read().encode("utf-8") if raw is None else bytes(raw.read())
