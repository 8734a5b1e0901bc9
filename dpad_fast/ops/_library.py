"""Registration of the ops with torch.library.

The module uses plain `Library.define` and `impl` and not `custom_op`, which wraps every call in autograd and mutation
checks. Those cost more than a whole group advantage, and none of these ops has a gradient.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

_LIBRARY: Any = torch.library.Library("dpad_fast", "FRAGMENT")  # type: ignore[no-untyped-call]
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def register(
    name: str, schema: str, *, cpu: Callable[_Arguments, _Result], cuda: Callable[_Arguments, _Result],
    fake: Callable[_Arguments, _Result],
) -> Callable[_Arguments, _Result]:  # fmt: skip
    """Define one op with its implementations.

    Args:
        name: the op's name within the namespace `dpad_fast`.
        schema: arguments and results in torch's schema language, without the name.
        cpu: implementation for CPU tensors.
        cuda: implementation for CUDA tensors.
        fake: gives empty results of the right shape, dtype and device.

    Returns:
        The op's default overload; call it with positional arguments, as torch calls the implementations.
    """
    _LIBRARY.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, cpu, "CPU")
    _LIBRARY.impl(name, cuda, "CUDA")
    torch.library.register_fake(f"dpad_fast::{name}", fake, lib=_LIBRARY)
    overload: Callable[_Arguments, _Result] = getattr(torch.ops.dpad_fast, name).default
    return overload
