"""The one place that imports the compiled extension, and says why when it cannot be loaded."""

import importlib
import platform
import sys
from pathlib import Path
from typing import Any


def explain_load_failure(error: BaseException) -> str:
    """Turn a failed import of `dpad_fast._C` into a message that lists the likely causes.

    Args:
        error: what the import raised.

    Returns:
        Several lines: the error, what is on disk, and what to try, the likeliest cause first.
    """
    folder = Path(__file__).parents[1]
    found = sorted(path.name for path in folder.glob("_C*") if path.suffix in {".so", ".pyd"})
    causes = []
    if not found:
        causes.append("the extension was never built: run `pip install -e .` (or `pip install .`) in the repository")
        causes.append("the repository's folder hides an installed dpad-fast: start Python from another folder")
    else:
        tag = sys.implementation.cache_tag
        causes.append(f"it was built for another Python than {tag} ({sys.executable}): build again with this one")
        causes.append(f"it was built on another kind of machine than {platform.machine()}: build again on this one")
        causes.append("a shared library that it needs is missing or older than at build time (libstdc++, libcudart)")
    lines = [f"dpad_fast's compiled extension could not be loaded: {error}"]
    lines.append(f"  found in {folder}: {', '.join(found) or 'no _C*.so'}")
    lines.extend(f"  {number}. {cause}" for number, cause in enumerate(causes, 1))
    lines.append("  `python -m dpad_fast.info` prints what was built and where.")
    return "\n".join(lines)


def load() -> Any:
    """Import `dpad_fast._C`.

    Returns:
        The extension module.

    Raises:
        ImportError: it cannot be loaded; the message lists the likely causes.
        ValueError: the environment variable DPAD_FAST_SIMD names no instruction set; the message names the known ones.
    """
    try:
        module = importlib.import_module("dpad_fast._C")
    except ImportError as error:
        raise ImportError(explain_load_failure(error)) from error
    module.simd_report()  # reads DPAD_FAST_SIMD, before anything is computed
    return module


def __getattr__(name: str) -> Any:
    """Load `C`, the extension module, on first use, so that importing this module cannot fail."""
    if name == "C":
        globals()["C"] = module = load()
        return module
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
