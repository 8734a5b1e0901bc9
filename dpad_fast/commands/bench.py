"""Time the ops against their peers.

The benchmarks live in the repository's bench/ folder, beside the package, and are not part of the wheel. Everything
after `bench` goes to `python -m bench.run`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take everything as the benchmark runner's own arguments.

    Args:
        parser: the parser of `dpad-fast bench`.
    """
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on to python -m bench.run")


def _repository() -> Path:
    """The folder that holds bench/run.py: the current one, or the clone that this package is installed from."""
    for root in (Path.cwd(), Path(__file__).resolve().parents[2]):
        if (root / "bench" / "run.py").is_file():
            return root
    raise ValueError("bench/run.py was not found: run `dpad-fast bench` in a clone of the repository")


def run(args: argparse.Namespace) -> int:
    """Run bench/run.py in its repository.

    Args:
        args: the parsed arguments, `arguments` among them.

    Returns:
        The runner's exit status.
    """
    root = _repository()
    return subprocess.run([sys.executable, "-m", "bench.run", *args.arguments], cwd=root, check=False).returncode
