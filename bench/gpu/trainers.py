"""The advantages of TRL and verl as the installed releases compute them, without importing either.

TRL's stand inside a method of its trainer, and verl's module imports half of a cluster. So their own lines are read
from the installed files and run: a peer is what users run, also on a machine that lacks what the whole package needs.
"""

from __future__ import annotations

import ast
import importlib.util
import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

_LAZY = "from __future__ import annotations"  # annotations name classes that nobody imported


def _parsed(package: str, file: str) -> ast.Module:
    """A file of an installed package.

    Raises:
        ImportError: the package or the file is not there.
    """
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ImportError(f"{package} is not installed")
    path = Path(found.origin).parent / file
    if not path.is_file():
        raise ImportError(f"this release of {package} has no {file}")
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _run(statements: list[ast.stmt], names: dict[str, Any]) -> dict[str, Any]:
    tree = ast.fix_missing_locations(ast.Module([*ast.parse(_LAZY).body, *statements], type_ignores=[]))
    exec(compile(tree, "<peer>", "exec", dont_inherit=True), names)
    return names


def functions(package: str, file: str, names: dict[str, Any]) -> dict[str, Any]:
    """The functions of a file that are not decorated away, in a namespace of `names`.

    Args:
        package: of the file.
        file: its path in the package.
        names: what the functions find as globals; they are added.

    Returns:
        `names`.

    Raises:
        ImportError: the file is not there.
    """
    found = [node for node in _parsed(package, file).body if isinstance(node, ast.FunctionDef)]
    for node in found:
        node.decorator_list = []  # they enter the function into a registry
    return _run(list(found), names)


def verl(name: str) -> Callable[..., Any]:
    """A function of `verl.trainer.ppo.core_algos`.

    Raises:
        ImportError: verl is not installed, or this release has no such function.
    """
    names = functions("verl", "utils/groupwise.py", {"torch": torch, "np": np, "os": os})
    found = functions("verl", "trainer/ppo/core_algos.py", names | {"defaultdict": defaultdict})
    if name not in found:
        raise ImportError(f"this release of verl has no {name}")
    function: Callable[..., Any] = found[name]
    return function


def trl(groups_of: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """The lines of TRL's `GRPOTrainer` from rewards [N, F] to advantages [N], with its defaults.

    Raises:
        ImportError: TRL is not installed, or the lines are not where they were.
    """
    method = next(
        (
            node
            for node in ast.walk(_parsed("trl", "trainer/grpo_trainer.py"))
            if isinstance(node, ast.FunctionDef) and node.name == "_generate_and_score_completions"
        ),
        None,
    )
    lines = [] if method is None else [node for node in method.body if _is_of_advantages(node)]
    if not any(isinstance(node, ast.If) for node in lines):
        raise ImportError("the lines of this release of TRL that compute advantages were not found")
    arguments = ast.parse("def advantages_of(self, rewards_per_func, num_generations, device): pass").body[0]
    assert isinstance(arguments, ast.FunctionDef)
    arguments.body = [*lines, *ast.parse("return advantages", mode="exec").body]
    found = _run([arguments], functions("trl", "trainer/utils.py", {"torch": torch, "np": np}))
    settings = SimpleNamespace(
        multi_objective_aggregation="sum_then_normalize", scale_rewards="group", reward_weights=torch.ones(1),
    )  # fmt: skip

    def advantages(rewards: torch.Tensor) -> torch.Tensor:
        settings.reward_weights = settings.reward_weights.to(rewards.device)
        out: torch.Tensor = found["advantages_of"](settings, rewards, groups_of, rewards.device)
        return out

    return advantages


def _is_of_advantages(node: ast.stmt) -> bool:
    """A statement between the rewards and this process's slice of the advantages."""
    if isinstance(node, ast.If):
        return "multi_objective_aggregation" in ast.unparse(node.test)
    said = ast.unparse(node)
    return said.startswith(("unscorable_mask = ", "advantages = torch.nan_to_num("))
