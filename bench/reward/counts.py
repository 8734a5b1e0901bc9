"""What one call asks of a GPU: launches, kernels, copies and waits, from torch's profiler."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.autograd import DeviceType

LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")
COLUMNS = ("launches", "kernels", "up", "down", "pageable", "waits", "gpu_ms", "peak_mb")


def counts(events: Iterable[Any]) -> dict[str, Any]:
    """Counts of averaged profiler events.

    Args:
        events: of `profile.key_averages()`. Work of the GPU is under the operation that launched it too, so only
            events of the GPU's own are added up.

    Returns:
        "launches" by the host (a graph is one), "kernels" that ran, copies "up" and "down" (of them "pageable", for
        which the host waits), "waits" for the GPU, and "gpu_ms" that it worked.
    """
    found = list(events)
    there = [e for e in found if e.device_type == DeviceType.CUDA and not getattr(e, "is_user_annotation", False)]
    here = [e for e in found if e.device_type == DeviceType.CPU]

    def host(names: tuple[str, ...]) -> int:
        return sum(event.count for event in here if event.key in names)

    def copies(kind: str) -> int:
        return sum(event.count for event in there if event.key.startswith("Memcpy") and kind in event.key)

    return {
        "launches": host(LAUNCHES),
        "kernels": sum(event.count for event in there if not event.key.startswith(("Memcpy", "Memset"))),
        "up": copies("HtoD"),
        "down": copies("DtoH"),
        "pageable": copies("Pageable"),
        "waits": host(WAITS),
        "gpu_ms": f"{sum(event.self_device_time_total for event in there) / 1e3:.2f}",
    }


def scaled(found: dict[str, Any], times: int) -> dict[str, Any]:
    """Counts of a call that does the same `times` as often; its memory stays as it is."""
    more = {key: value * times for key, value in found.items() if isinstance(value, int)}
    return found | more | {"gpu_ms": f"{float(found['gpu_ms']) * times:.2f}"}


def profiled(call: Callable[[], Any]) -> tuple[dict[str, Any], Any]:
    """The counts of one call, with the most memory that torch held beyond what it held before; and the profile."""
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        call()
        # Not counted: the profiler sees it as a wait of the device, and it is this function's own.
        torch.cuda.synchronize()
    seen = counts(found.key_averages())
    seen["waits"] -= 1
    peak = torch.cuda.max_memory_allocated() - before
    return seen | {"peak_mb": f"{peak / 1e6:.0f}"}, found
