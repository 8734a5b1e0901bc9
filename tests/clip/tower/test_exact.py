"""Float32 is IEEE's within `exact_float32` and its like, and torch's settings come back, in both interfaces."""

from __future__ import annotations

import os
import threading

import pytest
import torch

from dpad_fast.clip.tower import exact
from dpad_fast.clip.tower.exact import exact_float32, exact_on_cpu, exact_products, float32_sums
from dpad_fast.clip.tower.forward import TowerForward
from dpad_fast.clip.tower.gpu_attention import GpuProducts
from dpad_fast.clip.tower.products import TorchProducts
from dpad_fast.clip.tower.towers import Towers
from dpad_fast.clip.tower.weights import Affine, read_weights
from dpad_fast.testing.towers import own_forward

newer = pytest.mark.skipif(not exact._NEWER, reason="torch before 2.9 has one interface")


_ALL = (("generic", "all"), ("cuda", "all"), ("cuda", "matmul"))


def reset() -> None:
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    if exact._NEWER:
        for backend, operation in (*_ALL, ("mkldnn", "matmul"), ("mkldnn", "conv")):
            torch._C._set_fp32_precision_setter(backend, operation, "none")


@pytest.fixture(autouse=True)
def default_settings():
    reset()
    yield
    reset()


def state() -> tuple:
    found: list = [exact._uses_tf32("matmul"), exact._uses_tf32("conv")]
    for read in (
        torch.get_float32_matmul_precision,
        lambda: torch.backends.cuda.matmul.allow_tf32,
        lambda: torch.backends.cudnn.allow_tf32,
    ):
        try:
            found.append(read())
        except RuntimeError:
            found.append("mixed")
    if exact._NEWER:
        get = torch._C._get_fp32_precision_getter
        places = ("generic", "all"), ("cuda", "all"), ("cuda", "matmul"), ("cuda", "conv"), ("cuda", "rnn")
        found += [get(*place) for place in (*places, ("mkldnn", "matmul"), ("mkldnn", "conv"))]
    return tuple(found)


def older(precision):
    def change():
        torch.set_float32_matmul_precision(precision)

    return change


def allow_tf32():
    torch.backends.cuda.matmul.allow_tf32 = True


def no_convolutions():
    torch.backends.cudnn.allow_tf32 = False


def newer_products():
    torch.backends.cuda.matmul.fp32_precision = "tf32"


def newer_all():
    torch.backends.fp32_precision = "tf32"


def newer_after_older():
    torch.set_float32_matmul_precision("high")
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cuda.matmul.fp32_precision = "tf32"


def medium_and_exact_cpu():
    torch.set_float32_matmul_precision("medium")
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"


def convolutions_apart():
    torch.backends.cudnn.rnn.fp32_precision = "ieee"
    torch.backends.cudnn.conv.fp32_precision = "tf32"


OLDER = {"highest": older("highest"), "high": older("high"), "medium": older("medium"), "allow_tf32": allow_tf32}
OLDER["no convolutions"] = no_convolutions
NEWER = (newer_products, newer_all, newer_after_older, medium_and_exact_cpu, convolutions_apart)


def check(change) -> None:
    change()
    before = state()
    with exact_float32():
        assert not exact._uses_tf32("matmul")
        assert not exact._uses_tf32("conv")
        with exact_float32():
            assert not exact._uses_tf32("matmul")
        assert not exact._uses_tf32("matmul")
        inside = state()
    assert state() == before
    # A read by another thread meanwhile must not raise where it did not before.
    for position in (2, 3, 4):
        assert inside[position] != "mixed" or before[position] == "mixed"


@pytest.mark.parametrize("setting", OLDER)
def test_settings_of_the_older_interface(setting: str) -> None:
    check(OLDER[setting])


@newer
@pytest.mark.parametrize("setting", NEWER)
def test_settings_of_the_newer_interface(setting) -> None:
    check(setting)


@newer
def test_a_product_that_followed_all_operations_follows_them_again() -> None:
    torch.backends.fp32_precision = "tf32"
    with exact_float32():
        pass
    assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    torch.backends.fp32_precision = "ieee"
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"


@pytest.mark.parametrize("setting", ["high", "medium"])
def test_on_a_torch_with_the_older_interface_alone(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "_NEWER", False)
    torch.set_float32_matmul_precision(setting)
    with exact_float32():
        assert torch.get_float32_matmul_precision() == "highest"
        assert torch.backends.cuda.matmul.allow_tf32 is False
        assert torch.backends.cudnn.allow_tf32 is False
    assert torch.get_float32_matmul_precision() == setting
    assert torch.backends.cudnn.allow_tf32 is True


def test_nothing_is_set_where_nothing_need_be(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.backends.cudnn.allow_tf32 = False

    def refuse(*_args: object) -> None:
        raise AssertionError("a setting was changed")

    monkeypatch.setattr(torch, "set_float32_matmul_precision", refuse)
    monkeypatch.setattr(exact, "_set_newer", refuse)
    with exact_float32(), float32_sums():
        pass


def test_products_alone_leave_convolutions_as_they_are() -> None:
    torch.set_float32_matmul_precision("high")
    before = state()
    with exact_products(), exact_products():
        assert not exact._uses_tf32("matmul")
        assert exact._uses_tf32("conv")
    assert state() == before


def newer_cpu_products():
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"


def convolutions_in_bfloat16():
    torch.backends.mkldnn.conv.fp32_precision = "bf16"


def all_on_cpu_in_bfloat16():
    torch.backends.mkldnn.fp32_precision = "bf16"


def coarse_on_cpu() -> bool:
    """Whether products or convolutions on a CPU may be of another kind than IEEE float32's."""
    if not exact._NEWER:
        return torch.get_float32_matmul_precision() == "medium"
    return any(exact._newer("mkldnn", operation) in ("bf16", "tf32") for operation in ("matmul", "conv"))


CPU = [older("medium")]
if exact._NEWER:
    CPU += [older("high"), medium_and_exact_cpu, convolutions_in_bfloat16, all_on_cpu_in_bfloat16]


@pytest.mark.parametrize("change", CPU)
@pytest.mark.parametrize("kind", ["own", "towers"])
def test_float32_on_a_cpu_is_exact_whatever_is_allowed(tiny, kind: str, change, monkeypatch) -> None:
    """Both what a model of any type runs by and what "guarded" looks again with."""
    model = tiny[0]
    made = own_forward(model) if kind == "own" else TowerForward(Towers(read_weights(model), TorchProducts()))
    rows = [(1, 5, 9, 2), (1, 7, 2)]
    expected = made.texts(rows, 1)
    change()
    before, seen = state(), []
    real = torch.nn.functional.linear

    def linear(*args):
        seen.append(coarse_on_cpu())
        return real(*args)

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    found = made.texts(rows, 1)
    assert seen
    assert not any(seen)
    assert torch.equal(found, expected)
    assert state() == before


def test_on_a_cpu_with_the_older_interface_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "_NEWER", False)
    torch.set_float32_matmul_precision("medium")
    with exact_on_cpu(), exact_on_cpu():
        assert torch.get_float32_matmul_precision() == "highest"
    assert torch.get_float32_matmul_precision() == "medium"
    torch.set_float32_matmul_precision("high")
    with exact_on_cpu():
        assert torch.get_float32_matmul_precision() == "high"


def test_a_thread_that_changes_nothing_keeps_nobody_waiting() -> None:
    """Encoders on CPUs of several threads would otherwise work one behind the other."""
    entered = threading.Event()

    def second() -> None:
        with exact_on_cpu():
            entered.set()

    with exact_on_cpu():
        thread = threading.Thread(target=second)
        thread.start()
        assert entered.wait(10)
    thread.join()


def test_settings_come_back_after_an_error() -> None:
    torch.set_float32_matmul_precision("high")
    with pytest.raises(KeyError), exact_float32():
        raise KeyError
    assert torch.get_float32_matmul_precision() == "high"
    with exact_float32():  # the turn is free again
        pass


def test_a_setting_that_another_thread_makes_meanwhile_stays() -> None:
    torch.set_float32_matmul_precision("high")
    with exact_float32():
        other = threading.Thread(target=torch.set_float32_matmul_precision, args=("medium",))
        other.start()
        other.join()
    assert torch.get_float32_matmul_precision() == "medium"


@newer
@pytest.mark.parametrize("setting", ["highest", "high", "medium"])
@pytest.mark.parametrize("before", [older("medium"), older("high"), newer_cpu_products])
def test_a_setting_for_cpus_that_another_thread_makes_meanwhile_stays(before, setting: str) -> None:
    """Else the two interfaces would differ afterwards, and every read through the older one would raise."""
    older(setting)()
    expected = state()
    reset()
    before()
    with exact_on_cpu():
        other = threading.Thread(target=torch.set_float32_matmul_precision, args=(setting,))
        other.start()
        other.join()
    if before is newer_cpu_products and setting == "highest":
        # The older interface said so before: nobody can tell that it was set again.
        assert exact._newer("mkldnn", "matmul") == "bf16"
    else:
        assert state() == expected
        assert torch.get_float32_matmul_precision() == setting


def test_threads_take_turns() -> None:
    """The second would otherwise see the first one's change, change nothing, and go on after it was undone."""
    torch.set_float32_matmul_precision("high")
    entered, leave, seen = threading.Event(), threading.Event(), []

    def second() -> None:
        with exact_float32():
            entered.set()
            assert leave.wait(10)
            seen.append(exact._uses_tf32("matmul"))

    with exact_float32():
        thread = threading.Thread(target=second)
        thread.start()
        assert not entered.wait(0.05)
    assert entered.wait(10)
    leave.set()
    thread.join()
    assert seen == [False]
    assert torch.get_float32_matmul_precision() == "high"


def test_a_fork_waits_until_settings_are_back() -> None:
    """A child of a fork in between would keep the change, and wait for ever for a thread that it does not have."""
    torch.set_float32_matmul_precision("high")
    entered, leave = threading.Event(), threading.Event()

    def change() -> None:
        with exact_float32():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=change)
    thread.start()
    assert entered.wait(10)
    threading.Timer(0.2, leave.set).start()
    child = os.fork()
    if child == 0:
        with exact_float32():
            os._exit(0 if exact._uses_tf32("matmul") is False else 1)
    thread.join()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    with exact_float32(), exact_float32():  # the parent's turn can still be taken again
        pass
    assert torch.get_float32_matmul_precision() == "high"


def product(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, watch) -> None:
    products = GpuProducts(dtype)
    layer = products.prepare([Affine(torch.randn(4, 8), None)])
    real = products._multiply

    def multiply(*args):
        watch()
        return real(*args)

    monkeypatch.setattr(products, "_multiply", multiply)
    products.linear(torch.randn(3, 8), layer, 1)


def test_products_in_float32_are_exact_whatever_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_float32_matmul_precision("high")
    seen = []
    product(torch.float32, monkeypatch, lambda: seen.append(exact._uses_tf32("matmul")))
    product(torch.bfloat16, monkeypatch, lambda: seen.append(exact._uses_tf32("matmul")))
    assert seen == [False, True]  # bfloat16's have no use for it, and touch nothing
    assert torch.get_float32_matmul_precision() == "high"


@pytest.mark.skipif(not exact._HALF_SUMS, reason="torch before 2.7 always sums in float32")
def test_products_in_float16_are_summed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    products = torch.backends.cuda.matmul
    try:
        products.allow_fp16_accumulation = True
        seen = []
        product(torch.float16, monkeypatch, lambda: seen.append(products.allow_fp16_accumulation))
        assert seen == [False]
        assert products.allow_fp16_accumulation is True
    finally:
        products.allow_fp16_accumulation = False
