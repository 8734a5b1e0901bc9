"""The diff of docs/trl.md leads from a stock script to the example in examples/."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "trl.md").read_text(encoding="utf-8")


def sides():
    """The script before and after the diff."""
    [diff] = re.findall(r"```diff\n(.*?)\n```", PAGE, re.DOTALL)
    lines = diff.split("\n")
    assert all(line == "" or line[0] in " +-" for line in lines)
    before, after = ([line[1:] for line in lines if line[:1] != other] for other in "+-")
    return "\n".join(before) + "\n", "\n".join(after) + "\n"


def test_the_diff_makes_the_example():
    before, after = sides()
    assert after == (ROOT / "examples" / "trl_grpo.py").read_text(encoding="utf-8")
    names = {node.id for node in ast.walk(ast.parse(before)) if isinstance(node, ast.Name)}
    assert "has_an_answer" in names
    assert not {"df", "TrlRewards", "rewards"} & names


def test_the_mixin_is_written_as_printed():
    [block] = re.findall(r"```python\n(.*?)\n```", PAGE, re.DOTALL)
    ast.parse(block)
    assert "class My(GroupAdvantageMixin, GRPOTrainer)" in block


def test_the_pins_are_those_that_are_tested():
    pins = (ROOT / "tests" / "integrations" / "environments" / "trl.txt").read_text(encoding="utf-8")
    named = re.findall(r"\b(trl|transformers|datasets|accelerate)==(\S+)", PAGE.split("## ")[0])
    assert len(named) == 4
    for name, version in named:
        assert f"{name}=={version}\n" in pins
