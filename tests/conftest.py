"""Settings that must be made before the first test module is imported."""

import os

import pytest
import torch

# No test asks a model hub: what is missing is missing at once, not after a minute of retries.
os.environ["HF_HUB_OFFLINE"] = "1"

# Without a GPU the Triton kernels run in Triton's interpreter, which is chosen when triton is first imported. With one,
# or where one is demanded, the same tests run what the compiler makes of the kernels.
if not torch.cuda.is_available() and os.environ.get("DPAD_FAST_REQUIRE_CUDA") != "1":
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what is marked `gpu` where there is none, unless Triton's interpreter stands in for it."""
    from dpad_fast.testing import missing_cuda

    reason = missing_cuda()
    for item in items if reason is not None else ():
        mark = item.get_closest_marker("gpu")
        if mark is not None and not mark.kwargs.get("interpreter"):
            item.add_marker(pytest.mark.skip(reason=reason))
