"""What verl loads on every `import verl` (entry point group `verl.plugins`): the name `dpad` for its estimators.

It must be cheap and must not fail. verl's registry of estimators takes long to import and has no list for later, so
the name is registered when verl itself imports the registry; of this package nothing is imported before an advantage
is asked for.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_REGISTRY = "verl.trainer.ppo.core_algos"


def dpad(*arguments: Any, **settings: Any) -> Any:
    """`dpad_advantage`, which is imported when it is called."""
    from dpad_fast.integrations._verl_advantage import dpad_advantage

    return dpad_advantage(*arguments, **settings)


def register(registry: ModuleType) -> None:
    """Makes `algorithm.adv_estimator=dpad` known to verl; more than once does nothing more.

    Args:
        registry: verl's module of estimators. Where another one has the name, a warning says so.
    """
    try:
        registry.register_adv_est("dpad")(dpad)
    except Exception as error:  # it would fail verl's own import
        logging.getLogger(__name__).warning("dpad-fast cannot register algorithm.adv_estimator=dpad: %s", error)


class RegisterOnImport:
    """A finder for `sys.meta_path` that finds verl's registry where Python does, and registers once it has run."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The registry's spec; None for every other module, which the finders after this one find."""
        spec = PathFinder.find_spec(name, path, target) if name == _REGISTRY else None
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def run_and_register(module: ModuleType) -> None:
            run(module)
            register(module)

        spec.loader.exec_module = run_and_register  # type: ignore[method-assign]
        return spec


if _REGISTRY in sys.modules:
    register(sys.modules[_REGISTRY])
elif RegisterOnImport not in sys.meta_path:
    sys.meta_path.insert(0, RegisterOnImport)
