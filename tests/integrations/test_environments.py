"""The environments of frameworks: each has tests, and names what is installed without its dependencies."""

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).parent


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


def test_environments_of_this_kind_have_tests():
    for name in ("areal", "openrlhf", "slime", "swift"):
        assert (HERE / "environments" / f"{name}.txt").is_file()
        assert list((HERE / f"with_{name}").glob("test_*.py"))
