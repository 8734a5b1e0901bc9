"""Input and output of the command line: UTF-8 everywhere, and no control character of a user's text."""

from __future__ import annotations

import io
import os
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
    return _UNSAFE.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), as_utf8(str(text)))


def as_utf8(name: str) -> str:
    """A file's name read as UTF-8: in another locale Python makes a lone surrogate of each of its bytes.

    Args:
        name: a name, or text that holds names.

    Returns:
        The same, with surrogates that stand for UTF-8 read as such; bytes that are no UTF-8 stay surrogates.
    """
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return name


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
    """Write and read UTF-8, whatever the locale says: elsewhere "±" cannot be printed, and bytes become surrogates.

    Under PYTHONUNBUFFERED or `python -u` a text stream drops without a word what a nearly full disk does not take of a
    write; a buffer writes the rest, or fails.
    """
    if isinstance(getattr(sys.stdout, "buffer", None), io.RawIOBase):
        sys.stdout = open(sys.stdout.fileno(), "w", buffering=1, closefd=False)  # noqa: SIM115
    if sys.stderr is None:  # closed; `print` would send mistakes to standard output
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream, errors in ((sys.stdout, "strict"), (sys.stderr, "backslashreplace")):
        reconfigure = getattr(stream, "reconfigure", None)  # a notebook's stream has none
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors=errors)


def drop_stdout() -> None:
    """Where standard output takes nothing any more, let it go nowhere: Python would complain again on exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def read_stdin() -> bytes:
    """All of standard input, as bytes: the locale has no say in what they mean.

    Raises:
        ValueError: standard input is closed.
    """
    if sys.stdin is None:
        raise ValueError("standard input is closed")
    raw = getattr(sys.stdin, "buffer", None)  # None where a test or a notebook put a text stream in its place
    return sys.stdin.read().encode("utf-8") if raw is None else bytes(raw.read())
