"""Makes an environment per training framework and runs its tests against the installed release.

    python tests/integrations/environments.py                      # every framework of environments/*.txt
    python tests/integrations/environments.py trl verl -- -k async # some; the rest goes on to pytest

The frameworks cannot share an environment. uv makes one each in build/integrations, with the pinned requirements of
environments/NAME.txt and this package (editable), keeps it between runs, and makes it again when the requirements
change. Ends with a line per framework, and with status 1 if one failed or could not be installed.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "integrations"
PYTHONS = ((3, 11), (3, 12))  # the pins have wheels for these; for another one uv finds or fetches the first of them
TEST_TOOLS = ("pytest>=8", "pytest-timeout")
SUMMARY = re.compile(r"\b\d+ (?:passed|failed|skipped|errors?)\b.* in [\d.]+s")
TIMEOUT_S = 600  # of one test: a framework that hangs is a failure, not a wait
# Fixed seeds, no network and one thread per process: on any machine the same run.
SETTINGS = {
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "WANDB_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@dataclass(frozen=True)
class Outcome:
    """What became of one framework."""

    name: str
    good: bool
    words: str


def known() -> list[str]:
    """Every framework that has requirements."""
    return sorted(path.stem for path in (HERE / "environments").glob("*.txt"))


def run(name: str, build: Path, uv: str, flags: list[str], arguments: list[str]) -> Outcome:
    """Makes the environment of one framework where it is not there, and runs its tests."""
    print(f"\n== {name}", flush=True)
    folder = build / name
    reason = prepare(name, folder, uv, flags)
    if reason is not None:
        return Outcome(name, False, f"could not be installed: {reason}")
    variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    variables |= SETTINGS | {
        "DPAD_FAST_INTEGRATION": name,
        "VIRTUAL_ENV": str(folder),
        "PATH": os.pathsep.join((str(folder / "bin"), os.environ["PATH"])),
    }
    # A warning of a framework is not a fault of this package: they are printed, and no errors here.
    command = [str(folder / "bin" / "python"), "-m", "pytest", "-W", "default", f"--timeout={TIMEOUT_S}"]
    status, last = shown([*command, *arguments, str(HERE / f"with_{name}")], variables)
    passed = re.search(r"\b[1-9]\d* passed", last) is not None
    if status == 0 and passed:
        return Outcome(name, True, f"passed: {last}")
    return Outcome(name, False, f"failed: {last}" if status != 0 else f"failed: no test passed: {last}")


def shown(command: list[str], variables: dict[str, str]) -> tuple[int, str]:
    """Runs a command and prints what it prints; its status, and pytest's last word or else the last line, unframed."""
    last, word = "no output", ""
    process = subprocess.Popen(
        command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line.strip().strip("=").strip() or last
            if SUMMARY.search(last):  # frameworks say things behind it, when the process ends
                word = last
    return process.returncode, word or last


def prepare(name: str, folder: Path, uv: str, flags: list[str]) -> str | None:
    """The environment, with the package in it and its extension built; why not, where that fails."""
    requirements = HERE / "environments" / f"{name}.txt"
    here = sys.version_info[:2] in PYTHONS
    version = ".".join(map(str, sys.version_info[:2] if here else PYTHONS[0]))
    recipe = hashlib.sha256(requirements.read_bytes() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()
    stamp = folder / "made-from"
    said = f"{recipe} {version} {' '.join(TEST_TOOLS)}"
    package = ["--refresh-package", "dpad-fast", "--reinstall-package", "dpad-fast", "--editable", str(ROOT)]
    install = [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), *flags]
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != said:
        shutil.rmtree(folder, ignore_errors=True)
        reason = done([uv, "venv", "--quiet", "--python", sys.executable if here else version, str(folder)])
        if reason is None:
            keep = extension_is_new(folder)
            reason = done([*install, "--requirement", str(requirements), *TEST_TOOLS, *package], keep=keep)
        alone = without_dependencies(requirements)
        if reason is None and alone:
            reason = done([*install, "--no-deps", *alone])
        if reason is None:
            stamp.write_text(said, encoding="utf-8")
        return reason
    return None if extension_is_new(folder) else done([*install, "--no-deps", *package])


def without_dependencies(requirements: Path) -> list[str]:
    """The packages that a file's lines `# without dependencies: NAME==VERSION` name: those want a GPU's packages."""
    lines = requirements.read_text(encoding="utf-8").splitlines()
    return [line.partition(":")[2].strip() for line in lines if line.startswith("# without dependencies:")]


def extension_is_new(folder: Path) -> bool:
    """Whether the extension for this environment's Python is there and newer than all that it is made of."""
    ask = "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))"
    asked = subprocess.run([str(folder / "bin" / "python"), "-c", ask], check=True, capture_output=True, text=True)
    built = ROOT / "dpad_fast" / f"_C{asked.stdout.strip()}"
    sources = [ROOT / "CMakeLists.txt", *(p for p in (ROOT / "csrc").rglob("*") if p.is_file())]
    return built.is_file() and built.stat().st_mtime >= max(path.stat().st_mtime for path in sources)


def done(command: list[str], *, keep: bool = False) -> str | None:
    """Runs a command; None, or the last lines of what it said where it failed."""
    print("$", shlex.join(command), flush=True)
    variables = os.environ | ({"DPAD_FAST_KEEP_EXTENSION": "1"} if keep else {})
    try:
        finished = subprocess.run(
            command, cwd=ROOT, env=variables, check=False, capture_output=True, text=True, errors="replace"
        )
    except OSError as error:
        return str(error)
    if finished.returncode == 0:
        return None
    said = (finished.stderr or finished.stdout).strip()
    print(said, flush=True)
    return " / ".join(line.strip() for line in said.splitlines()[-4:]) or f"status {finished.returncode}"


def pip_settings() -> list[str]:
    """What pip is told about indexes on this machine, as flags for uv, which reads no settings of pip's."""
    asked = subprocess.run([sys.executable, "-m", "pip", "config", "list"], check=False, capture_output=True, text=True)
    settings = {}
    for line in asked.stdout.splitlines():
        key, _, value = line.partition("=")
        settings[key.rpartition(".")[2]] = str(ast.literal_eval(value))
    flags = []
    for key in ("index-url", "extra-index-url", "find-links", "constraint"):
        flags += [part for value in settings.get(key, "").split() for part in (f"--{key}", value)]
    # As pip does: the best version of all indexes, and not of the first that has the name.
    return [*flags, "--index-strategy", "unsafe-best-match"]


def main() -> int:
    """Runs what the command line asks for; 1 if a framework failed."""
    own, cut, rest = sys.argv[1:], "--", []
    if cut in own:
        own, rest = own[: own.index(cut)], own[own.index(cut) + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(known())}; all when none is named")
    parser.add_argument("--uv", help="the program; the one beside this Python or on PATH when not given")
    parser.add_argument("--build", type=Path, default=BUILD, help="where the environments are kept (%(default)s)")
    parser.add_argument("--pip-flags", default="", help="flags for uv pip install, such as --index-url=URL")
    options = parser.parse_args(own)
    unknown = sorted(set(options.names) - set(known()))
    if unknown:
        parser.error(f"no such framework: {', '.join(unknown)}; known: {', '.join(known())}")
    beside = shutil.which("uv", path=str(Path(sys.executable).parent))
    uv = options.uv or beside or shutil.which("uv")
    if uv is None:
        parser.error("uv is not here: pip install uv, or make test-integrations, which does it")
    flags = [*pip_settings(), *shlex.split(options.pip_flags)]
    outcomes = [run(name, options.build.resolve(), uv, flags, rest) for name in options.names or known()]
    print()
    for outcome in outcomes:
        print(f"{outcome.name:<10}{outcome.words}")
    return 0 if all(outcome.good for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
