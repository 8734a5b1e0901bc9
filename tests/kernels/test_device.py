"""Launches go to the GPU that holds the tensors, current or not: recorded with fake tensors, without a GPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

pytest.importorskip("triton")


class Launches:
    """Stands for a kernel and for `torch.cuda.device`, and records which device was current at each launch."""

    def __init__(self) -> None:
        self.current: list[torch.device] = []
        self.seen: list[torch.device | None] = []

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        self.current.append(device)
        yield
        self.current.pop()

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *_, **__: self.seen.append(self.current[-1] if self.current else None)


def discriminative_reward(device: str) -> None:
    from dpad_fast.kernels.discriminative_reward import launch

    text = torch.empty(5, 8, device=device)
    launch(text, text, text, None, "binary", 50.0, 0.25)


def group_advantage(device: str) -> None:
    from dpad_fast.kernels.group_advantage import launch

    rewards = torch.empty(8, 2, device=device)
    for scale in ("std", "gdpo-batch"):
        launch(rewards, None, 4, scale, 1e-6, None, None, False)


def roi_clip_preprocess(device: str) -> None:
    from dpad_fast.kernels._crop_plan import COLUMNS
    from dpad_fast.kernels.roi_clip_preprocess import Plan, run

    table, normal = torch.empty(1, COLUMNS, dtype=torch.int64, device=device), torch.empty(3, 256, device=device)
    run(Plan(table, normal, 100, 100, 8, 8, True), torch.empty(1, 3, 8, 8, device=device))


CALLS = {
    discriminative_reward: (["discriminative_reward_kernel"], 1),
    group_advantage: (["group_advantage_kernel"], 3),
    roi_clip_preprocess: (["weights_kernel", "first_pass_kernel", "second_pass_kernel"], 3),
}


@pytest.mark.parametrize("call", CALLS)
def test_launches_go_to_the_tensors_gpu(call: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    module = importlib.import_module(f"dpad_fast.kernels.{call.__name__}")
    launches = Launches()
    kernels, count = CALLS[call]
    for kernel in kernels:
        monkeypatch.setattr(module, kernel, launches)
    monkeypatch.setattr(torch.cuda, "device", launches.device)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    with FakeTensorMode():
        call("cuda:1")
        call("cuda:0")  # which is the current one
        call("cpu")  # as in the interpreter: no device to make current
    assert launches.seen == [torch.device("cuda:1")] * count + [None] * 2 * count
