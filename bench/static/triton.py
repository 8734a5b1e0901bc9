"""The Triton kernels for `bench.gpu_static`, each compiled as its launcher would compile it, without a GPU."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.static.code import Case, Row, tool, usage, widths

Call = tuple[Case, Callable[[], object]]


class _Driver:
    """Stands in for a GPU's driver: names the architecture, and has nothing to launch on."""

    def __init__(self, architecture: int) -> None:
        self.architecture = architecture

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.architecture, 32)

    def get_current_device(self) -> int:
        return self.architecture

    def get_current_stream(self, device: int | None = None) -> int:
        return 0


@contextmanager
def compile_only(architecture: int) -> Iterator[list[tuple[str, Any]]]:
    """Within it, launching a Triton kernel only compiles it; gives the list of (name, compiled kernel)."""
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    compiled: list[tuple[str, Any]] = []
    original = JITFunction.run

    def run(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        kernel = original(self, *args, grid=grid, warmup=True, **kwargs)
        compiled.append((self.__name__, kernel))
        return kernel

    driver.set_active(_Driver(architecture))
    JITFunction.run = run
    try:
        yield compiled
    finally:
        JITFunction.run = original
        driver._active = None


def calls() -> list[Call]:
    """The calls of a training step: 128 to 1024 completions in groups of 8, 16 images of 640 x 480."""
    return [*_advantage(), *_discriminative(), *_preprocess()]


def _advantage() -> Iterator[Call]:
    from dpad_fast.kernels import group_advantage as kernel

    n, t = 1024, 512
    ids = torch.arange(n) % 128
    wide = {"group_advantage_kernel": ("loads", "stores")}
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        rewards, mask = torch.zeros(n, dtype=dtype), torch.ones(n, t, dtype=torch.int64)
        tokens, own = n * t * (8 + (8 if dtype == torch.float64 else 4)), n * rewards.element_size()
        case = Case(f"group_advantage std, groups of 8, {_short(dtype)}, [N, T] int64 mask", wide, tokens + 2 * own,
                    tokens + own, tokens + own)  # fmt: skip
        yield case, lambda r=rewards, m=mask: kernel.launch(r, None, 8, "std", 1e-6, None, m, False)
    rewards, weights, mask = torch.zeros(n, 4), torch.ones(4), torch.ones(n, t, dtype=torch.bool)
    for scale in ("batch", "gdpo"):
        # Every program looks at all ids and rewards; they are 24 KiB.
        least = n * t * 5 + n * (8 + 16)
        asked = n * t * 5 + n // kernel.ROWS * n * (8 + 16)
        case = Case(f"group_advantage {scale}, ids, 4 terms, [N, T] bool mask", {"group_advantage_kernel": ("stores",)},
                    asked, least, least)  # fmt: skip
        yield case, lambda s=scale: kernel.launch(rewards, ids, 0, s, 1e-6, weights, mask, False)


def _discriminative() -> Iterator[Call]:
    from dpad_fast.kernels import discriminative_reward as kernel

    n, m, d = 128, 16, 512
    rows = torch.arange(n) // (n // m)
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        text, roi = torch.zeros(n, d, dtype=dtype), torch.zeros(m, d, dtype=dtype)
        row, least = d * text.element_size(), (n + 2 * m) * d * text.element_size() + n * 20
        case = Case(f"discriminative_reward, D = 512, {_short(dtype)}", {"discriminative_reward_kernel": ("loads",)},
                    n * row + n // kernel.ROWS * 2 * row + n * 20, least, least)  # fmt: skip
        yield case, lambda t=text, r=roi: kernel.launch(t, r, r, rows, "binary", 10.0, 0.0)


def _preprocess() -> Iterator[Call]:
    from dpad_fast.kernels import roi_clip_preprocess as kernel

    image = torch.zeros(480, 640, 3, dtype=torch.uint8)
    boxes = np.array([[0, 0, 640, 480], [100, 50, 400, 350]] * 16)
    index = np.repeat(np.arange(16), 2)
    crops = 3 * int(((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sum())
    # Written by one kernel, read by another, in the level 2 cache: weights of about 14 taps, and 3 bytes of each line's
    # 224 columns.
    kept = 2 * 2 * len(boxes) * 224 * 4 * 14 + 2 * 3 * 224 * int((boxes[:, 3] - boxes[:, 1]).sum())
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for layout in (torch.contiguous_format, torch.channels_last):
            out = torch.empty(len(boxes), 3, 224, 224, dtype=dtype).to(memory_format=layout)
            least = 16 * image.numel() + out.numel() * out.element_size()
            # A tile of 32 columns reads about 8 more that its neighbours read too.
            case = Case(
                f"roi_clip_preprocess, 16 images, 32 boxes, {_short(dtype)}, "
                f"{'NCHW' if layout == torch.contiguous_format else 'channels-last'}",
                # Loads are words or bytes by nature: a box starts at any column, and taps lie 3 bytes apart.
                {"second_pass_kernel": ("stores",) if layout == torch.contiguous_format else ()},
                crops * 9 // 8 + out.numel() * out.element_size() + kept // 2 * (1 + 224 // 16),
                least,
                least,
            )
            yield case, lambda o=out: kernel.launch(
                [image] * 16, boxes, index, o, resize="shortest", interpolation="bicubic", center="floor",
                order="pillow-13", mean=(0.5,) * 3, std=(0.5,) * 3,
            )  # fmt: skip


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def look_at(call: Call, architecture: int) -> list[Row]:
    """Compile a call's kernels and read their machine code."""
    case, launch = call
    with compile_only(architecture) as compiled:
        launch()
    distinct = {id(kernel): (name, kernel) for name, kernel in compiled}
    return [_row(case, architecture, name, kernel) for name, kernel in distinct.values()]


def _row(case: Case, architecture: int, name: str, kernel: Any) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(kernel.asm["cubin"])
        registers, spilled, _ = usage(tool("cuobjdump", "-res-usage", str(cubin)))
        code = tool("nvdisasm", "-c", "-ndf", str(cubin))
    return Row(case, name, architecture, registers, spilled, kernel.metadata.shared, 32 * kernel.metadata.num_warps,
               widths("LDG", code), widths("STG", code))  # fmt: skip
