"""IEEE float32, whatever torch's settings allow, and those settings as they were afterwards.

torch keeps them for the whole process and in two interfaces: an older one (`torch.set_float32_matmul_precision`,
`allow_tf32`) and, since 2.9, a newer one (`fp32_precision`). A read through the older one raises where the two say
different things, in any thread. So a setting is changed through the interface that it was made in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import RLock
from typing import Any

import torch

from dpad_fast.clip.fork import fork_between_uses

_NEWER = hasattr(torch._C, "_get_fp32_precision_getter")
_HALF_SUMS = hasattr(torch._C, "_get_cublas_allow_fp16_accumulation")
# What float32 products may be made of on a CPU whose instructions have it, by torch's settings.
_COARSE = ("bf16", "tf32")
_Undo = Callable[[], None]


class _Turn:
    """Whose turn it is to have settings changed. A fork waits until nobody has: a child would keep the change."""

    def __init__(self) -> None:
        self._lock = RLock()
        fork_between_uses(self)


_turn = _Turn()


@contextmanager
def _forced(*forces: Callable[[list[_Undo]], None]) -> Iterator[None]:
    """A context in which some settings have the values that this package needs; see `exact_float32`.

    Threads take turns, so that no setting comes back while another thread relies on its change. A thread that finds
    nothing to change in its turn lets the next one have it at once.
    """
    with ExitStack() as held:
        lock = _turn._lock
        lock.acquire()
        held.callback(lock.release)
        undo: list[_Undo] = []
        held.callback(_run_all, undo)
        for force in forces:
            force(undo)
        if not undo:
            held.close()
        yield


def _run_all(undo: list[_Undo]) -> None:
    for back in undo:
        back()


def exact_float32() -> AbstractContextManager[None]:
    """Within it, float32 products and convolutions on a GPU are IEEE's; in a graph captured within it, for ever.

    Where torch's settings say so already, which for products is its default, nothing is changed. Otherwise another
    thread that launches float32 products meanwhile gets exact ones too: slower, never coarser. A setting that another
    thread changes meanwhile to anything but IEEE stays as that thread made it. It may be entered within itself.
    """
    return _forced(_force_products, _force_convolutions)


def exact_products() -> AbstractContextManager[None]:
    """The same without convolutions, of which the packed towers have none and which torch allows TF32 by default."""
    return _forced(_force_products)


def exact_on_cpu() -> AbstractContextManager[None]:
    """The same on a CPU, whose float32 products may be bfloat16's under "medium" where it has instructions for them."""
    return _forced(_force_cpu)


def float32_sums() -> AbstractContextManager[None]:
    """Within it, float16 products on a GPU are accumulated in float32, even where the caller allows float16.

    Partial sums may still be joined in half precision, which is torch's default.
    """
    return _forced(_force_sums)


def _force_products(undo: list[_Undo]) -> None:
    if not _uses_tf32("matmul"):
        return
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # the newer interface was used, which the older refuses to read
        undo.append(_force_newer("cuda", "matmul"))
        return
    on_cpu = _newer("mkldnn", "matmul")
    torch.set_float32_matmul_precision("highest")
    _not_by_all("matmul")

    def restore() -> None:
        if not _uses_tf32("matmul"):
            torch.set_float32_matmul_precision(before)
            if _newer("mkldnn", "matmul") != on_cpu:  # the older interface sets the CPU's too
                _set_newer("mkldnn", "matmul", on_cpu)

    undo.append(restore)


def _force_convolutions(undo: list[_Undo]) -> None:
    if not _uses_tf32("conv"):
        return
    cudnn: Any = torch.backends.cudnn
    try:
        older = bool(cudnn.allow_tf32)
    except RuntimeError:  # convolutions and recurrent layers differ, by the newer interface
        older = False
    if not older:
        undo.append(_force_newer("cuda", "conv"))
        return
    cudnn.allow_tf32 = False
    _not_by_all("conv", "rnn")

    def restore() -> None:
        if not _uses_tf32("conv"):
            cudnn.allow_tf32 = True

    undo.append(restore)


def _force_cpu(undo: list[_Undo]) -> None:
    if not _NEWER:
        if torch.get_float32_matmul_precision() != "medium":
            return
        torch.set_float32_matmul_precision("highest")
        undo.append(lambda: _restore_older("medium"))
        return
    for operation in ("matmul", "conv"):
        if _newer("mkldnn", operation) in _COARSE:
            undo.append(_force_newer("mkldnn", operation))


def _restore_older(before: str) -> None:
    if torch.get_float32_matmul_precision() == "highest":
        torch.set_float32_matmul_precision(before)


def _force_sums(undo: list[_Undo]) -> None:
    products: Any = torch.backends.cuda.matmul
    # Since torch 2.7; before, and by default, sums are in float32.
    if _HALF_SUMS and products.allow_fp16_accumulation:
        products.allow_fp16_accumulation = False
        undo.append(lambda: setattr(products, "allow_fp16_accumulation", True))


def _force_newer(backend: str, operation: str) -> _Undo:
    before = _newer(backend, operation)
    _set_newer(backend, operation, "ieee")
    older = _older(operation)

    def restore() -> None:
        # What another thread has set meanwhile stays. By the older interface that may have been IEEE's: to bring back
        # what was would then make the two differ, and each later read through the older one would raise.
        if _newer(backend, operation) in _COARSE or _older(operation) != older:
            return
        # What the operation had may have come from a setting for all of them, and should follow that one again.
        _set_newer(backend, operation, "none")
        if _newer(backend, operation) != before:
            _set_newer(backend, operation, before)

    return restore


def _older(operation: str) -> str | None:
    """What the older interface says of products; None where it refuses to be read, and for other operations."""
    if operation != "matmul":
        return None
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _not_by_all(*operations: str) -> None:
    """Where the older interface leaves operations to a setting for all of them, that must not allow TF32 either."""
    for operation in operations:
        if _NEWER and _uses_tf32(operation):
            _set_newer("cuda", operation, "ieee")


def _uses_tf32(operation: str) -> bool:
    if _NEWER:
        return _newer("cuda", operation) == "tf32"
    older: Any = torch.backends.cuda.matmul if operation == "matmul" else torch.backends.cudnn
    return bool(older.allow_tf32)


def _newer(backend: str, operation: str) -> str:
    """The precision in use, by the newer interface, whose getter never raises; "" before torch 2.9."""
    return str(torch._C._get_fp32_precision_getter(backend, operation)) if _NEWER else ""


def _set_newer(backend: str, operation: str, precision: str) -> None:
    torch._C._set_fp32_precision_setter(backend, operation, precision)
