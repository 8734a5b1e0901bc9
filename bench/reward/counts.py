"""What one call asks of a GPU: launches, kernels, copies and waits, from torch's profiler."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
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
        which the host waits), "waits" for the GPU, and "gpu_ms" that it worked. All are empty where there is no event
        of the GPU: the profiler saw nothing of it, which is not 0.
    """
    found = list(events)
    there = [e for e in found if e.device_type == DeviceType.CUDA and not getattr(e, "is_user_annotation", False)]
    if not there:
        return dict.fromkeys(COLUMNS[:-1], "")

    def copies(kind: str) -> int:
        return sum(event.count for event in there if event.key.startswith("Memcpy") and kind in event.key)

    return {
        "launches": by_host(found, LAUNCHES),
        "kernels": sum(event.count for event in there if not event.key.startswith(("Memcpy", "Memset"))),
        "up": copies("HtoD"),
        "down": copies("DtoH"),
        "pageable": copies("Pageable"),
        "waits": by_host(found, WAITS),
        "gpu_ms": f"{sum(event.self_device_time_total for event in there) / 1e3:.2f}",
    }


def by_host(events: Iterable[Any], names: tuple[str, ...]) -> int:
    """How often the host called functions of these names."""
    return sum(event.count for event in events if event.device_type == DeviceType.CPU and event.key in names)


def scaled(found: dict[str, Any], times: int) -> dict[str, Any]:
    """Counts of a call that does the same `times` as often; its memory stays as it is."""
    more = {key: value * times for key, value in found.items() if isinstance(value, int)}
    return found | more | ({"gpu_ms": f"{float(found['gpu_ms']) * times:.2f}"} if found["gpu_ms"] else {})


def profiled(call: Callable[[], Any]) -> tuple[dict[str, Any], Any]:
    """The counts of one call, with the most memory that torch held beyond what it held before; and the profile."""
    own = own_waits()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    found = watched(call)
    seen = counts(found.key_averages())
    if seen["waits"] != "":
        seen["waits"] -= own
    peak = torch.cuda.max_memory_allocated() - before
    return seen | {"peak_mb": f"{peak / 1e6:.0f}"}, found


def watched(call: Callable[[], Any]) -> Any:
    """The profile of a call and of the wait until its work is done."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        call()
        torch.cuda.synchronize()
    return found


@cache
def own_waits() -> int:
    """Waits in the profile of a call that does nothing: the one of `watched`, and the profiler's own.

    Some versions of torch wait when a profile ends, and the first profile also sets the profiler up.
    """
    watched(lambda: None)
    return by_host(watched(lambda: None).key_averages(), WAITS)
