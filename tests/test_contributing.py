"""CONTRIBUTING.md names files and folders that exist, and every folder of the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "CONTRIBUTING.md"
SUFFIXES = {".py", ".h", ".cpp", ".cu", ".md", ".yaml", ".toml", ".txt", ".sh"}


def text() -> str:
    return DOCUMENT.read_text(encoding="utf-8")


def files_in(folder: Path) -> Iterator[Path]:
    """Its files; a folder whose sources have moved may still hold Python's caches."""
    return (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def exists(path: Path) -> bool:
    return path.is_file() or any(files_in(path))


def missing(document: str) -> list[str]:
    """Backticked words that are paths and lead nowhere: from the root, with wildcards, or names in the folder before.

    A word with a slash is a path. A name with a suffix of source code is a file in the root, or in the last folder
    that the same list item or paragraph names.
    """
    found = []
    outside_blocks = re.sub(r"^```.*?^```$", "", document, flags=re.DOTALL | re.MULTILINE)
    for item in re.split(r"\n(?=\s*\n|\s*- |\d+\. )", outside_blocks):
        folder = ROOT
        for word in re.findall(r"`([^`]+)`", item):
            if " " in word or "\n" in word:  # a command
                continue
            if word.endswith("/"):
                folder = ROOT / word
            if "/" in word:
                there = any(map(exists, ROOT.glob(word.rstrip("/"))))
            else:
                there = Path(word).suffix not in SUFFIXES or exists(folder / word) or exists(ROOT / word)
            if not there:
                found.append(word if "/" in word or folder == ROOT else f"{folder.relative_to(ROOT)}/{word}")
    links = re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", document)
    return found + [link for link in links if not exists(ROOT / link)]


def test_a_path_that_leads_nowhere_is_found() -> None:
    words = "- `tests/`: `conftest.py` and `nobody.py`, `tests/nothing/`\n- `README.md`, `conftest.py`, `tests/*.nope`"
    assert missing(words) == ["tests/nobody.py", "tests/nothing/", "conftest.py", "tests/*.nope"]
    assert missing("`x.score`, `make test`, [one](README.md#top), [two](docs/none.md)") == ["docs/none.md"]


def test_every_path_exists() -> None:
    assert missing(text()) == []


def test_every_folder_of_the_code_has_a_line() -> None:
    unnamed = []
    for parent in ("csrc", "csrc/core", "csrc/simd", "dpad_fast", "dpad_fast/clip", "dpad_fast/train", "bench"):
        for folder in sorted((ROOT / parent).iterdir()):
            name = f"{folder.relative_to(ROOT)}/"
            if folder.is_dir() and not folder.is_symlink() and any(files_in(folder)) and f"`{name}" not in text():
                unnamed.append(name)
    assert unnamed == []
