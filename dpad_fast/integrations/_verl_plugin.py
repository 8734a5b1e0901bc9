"""What verl loads on every `import verl` (entry point group `verl.plugins`): the name `dpad` for its estimators.

It must be cheap and must not fail: nothing of this package is imported before an advantage is asked for.
"""

from __future__ import annotations

import logging
from typing import Any


def dpad(*arguments: Any, **settings: Any) -> Any:
    """`dpad_advantage`, which is imported when it is called."""
    from dpad_fast.integrations._verl_advantage import dpad_advantage

    return dpad_advantage(*arguments, **settings)


def register() -> None:
    """Makes `algorithm.adv_estimator=dpad` known to verl; more than once does nothing more.

    Raises:
        ValueError: another estimator has the name.
    """
    from verl.trainer.ppo.core_algos import register_adv_est

    register_adv_est("dpad")(dpad)


try:
    register()
except Exception as error:  # verl would hide it, and tell later that it knows no "dpad"
    logging.getLogger(__name__).warning("dpad-fast cannot register algorithm.adv_estimator=dpad: %s", error)
