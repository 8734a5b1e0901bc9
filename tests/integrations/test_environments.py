"""`make test-integrations` names what it does not know, what could not be installed and what failed."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NAMES = sorted(path.stem for path in (HERE / "environments").glob("*.txt"))


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(HERE / "environments.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )


def environments():
    spec = importlib.util.spec_from_file_location("environments", HERE / "environments.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["environments"] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


def test_packages_without_their_dependencies(tmp_path):
    module = environments()
    file = tmp_path / "x.txt"
    file.write_text("# some words\n# without dependencies: openrlhf==0.11.2\ntorch==2.13.0\n")
    assert module.without_dependencies(file) == ["openrlhf==0.11.2"]
    named = {name: module.without_dependencies(HERE / "environments" / f"{name}.txt") for name in ("areal", "swift")}
    assert named == {"areal": ["areal==1.0.4"], "swift": []}


def test_an_unknown_framework_is_named():
    done = run("trl", "trll")
    assert done.returncode == 2
    assert f"no such framework: trll; known: {', '.join(NAMES)}" in done.stderr


def test_what_could_not_be_installed_is_said_and_is_a_failure(tmp_path):
    done = run("--uv", tmp_path / "nowhere", "--build", tmp_path, "ray")
    assert done.returncode == 1
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("ray       could not be installed: [Errno 2]")


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("== 36 passed, 7 warnings in 9.79s (0:03) ==\nWarning: 1 passed by", "36 passed, 7 warnings in 9.79s (0:03)"),
        ("1 failed, 2 passed in 0.10s", "1 failed, 2 passed in 0.10s"),
        ("== no tests ran in 0.01s ==\nbye", "bye"),
        ("", "no output"),
    ],
)  # fmt: skip
def test_what_is_said_behind_pytest_s_summary_hides_nothing(said, word):
    """A warning of an event loop, when the process ended, made a failure of 36 passed tests."""
    command = [sys.executable, "-c", f"print({said!r}, end='')"]
    assert environments().shown(command, dict(os.environ)) == (0, word)


def test_every_framework_has_tests_and_every_folder_of_tests_an_environment():
    assert {"ray", "trl"} <= set(NAMES)
    folders = sorted(path.name for path in HERE.glob("with_*") if any(path.glob("test_*.py")))
    assert folders == [f"with_{name}" for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_requirements_are_pinned(name):
    lines = (HERE / "environments" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    assert any("==" in line for line in lines if not line.startswith("#"))


@pytest.mark.parametrize("name", NAMES)
def test_beside_torchvision_torch_is_its_own_build(name):
    """`==2.13.0` takes 2.13.0+cpu too, where there is one, and torchvision's operators then fail."""
    lines = (HERE / "environments" / f"{name}.txt").read_text().splitlines()
    if any(line.startswith("torchvision") for line in lines):
        assert any(line.startswith("torch===") for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_the_server_is_installed_as_users_have_it(name):
    """What the extra asks for: without httptools another parser reads the requests."""
    text = (HERE / "environments" / f"{name}.txt").read_text(encoding="utf-8")
    project = (HERE.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    extra = ast.literal_eval(re.search(r"^serve = (\[.*\])$", project, re.MULTILINE)[1])
    assert len(extra) > 3
    _, server, after = text.partition("# the scorer as a server\n")
    assert not server or set(extra) <= set(after.splitlines())
    assert bool(server) == ("fastapi" in text)


def test_the_usual_suite_leaves_these_tests_out():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", str(HERE)],
        cwd=HERE.parents[1], capture_output=True, text=True, timeout=60, env={**os.environ, "PYTEST_ADDOPTS": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "test_trl.py::" in done.stdout
    assert "/with_" not in done.stdout
