"""Settings that must be made before the first test module is imported."""

import os

import torch

# No test asks a model hub: what is missing is missing at once, not after a minute of retries.
os.environ["HF_HUB_OFFLINE"] = "1"

# Without a GPU the Triton kernels run in Triton's interpreter, which is chosen when triton is first imported. With one,
# or where one is demanded, the same tests run what the compiler makes of the kernels.
if not torch.cuda.is_available() and os.environ.get("DPAD_FAST_REQUIRE_CUDA") != "1":
    os.environ.setdefault("TRITON_INTERPRET", "1")
