"""Every Triton kernel and dtype compiled ahead of time, and the machine code of CUDA C++, without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def test_every_kernel_compiles_without_spills_and_with_wide_loads() -> None:
    pytest.importorskip("triton")
    from dpad_fast._native import extension

    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    found = [  # two at a time: one for each core
        subprocess.Popen([sys.executable, "-m", "bench.gpu_static", "--arch", *architectures], cwd=ROOT,
                         env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for architectures in (("80", "100"), ("90",))
    ]  # fmt: skip
    for process in found:
        printed, _ = process.communicate(timeout=500)
        assert process.returncode == 0, printed[-4000:]
        assert ", 0 faults" in printed
        for kernel in ("group_advantage_kernel", "discriminative_reward_kernel", "weights_kernel", "first_pass_kernel",
                       "second_pass_kernel"):  # fmt: skip
            assert f"  {kernel}" in printed
        for dtype in ("float32", "bfloat16", "float16", "float64"):
            assert f"discriminative_reward, D = 512, {dtype}" in printed
        if hasattr(extension.C, "cuda_pack"):
            for body in ("PackBody", "UnpackBody", "MatrixBody<each>", "DrawWordsBody<coco>", "DrawCountsBody<opencv>"):
                assert f"  {body}" in printed


@pytest.fixture
def code(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    from bench.static import code

    return code


def test_machine_code_is_read(code: Any) -> None:
    line = "  REG:98 STACK:16 SHARED:25344 LOCAL:8 CONSTANT[0]:440 TEXTURE:0"
    assert code.usage(line) == (98, 24, 25344)
    with pytest.raises(ValueError, match="SHARED is not in what cuobjdump printed"):
        code.usage("REG:98 STACK:16 LOCAL:8")
    listing = "LDG.E R1 ; LDG.E.128.CONSTANT R4 ; LDG.E.64 R2 ; LDG.E.U8 R9 ; STG.E.128 [R2] ; LDG.E.U16.CONSTANT R1"
    assert code.widths("LDG", listing) == {16: 1, 8: 1, 4: 1, 2: 1, 1: 1}
    assert code.widths("STG", listing) == {16: 1}


def test_faults_are_found(code: Any) -> None:
    case = code.Case("call", {"kernel": ("loads", "stores")}, asked=200, moved=120, least=100)
    assert case.faults() == ["moves 1.20 times the least bytes, above 1.15"]
    row = code.Row(case, "kernel", 90, 64, 8, 0, 256, {16: 2, 4: 1}, {8: 3})
    assert row.faults() == ["8 bytes spilled", "no 16-byte stores"]
    good = code.Case("call", {"kernel": ("loads",)}, asked=200, moved=100, least=100)
    assert not good.faults()
    assert not code.Row(good, "kernel", 90, 64, 0, 0, 256, {16: 2}, {8: 3}).faults()


def test_warps_that_fit(code: Any) -> None:
    case = code.Case("call", {}, 1, 1, 1)
    for registers, shared, threads, warps in (
        (32, 0, 256, 64),  # all that there are
        (64, 0, 256, 32),  # 64 registers x 32 lanes x 32 warps are all registers
        (255, 0, 128, 8),
        (32, 100 * 1024, 256, 16),  # two blocks of shared memory
        (32, 0, 32, 32),  # 32 blocks of one warp
    ):
        assert code.Row(case, "kernel", 90, registers, 0, shared, threads).warps() == warps


def test_roofs_are_the_slower_of_bytes_and_counts(code: Any) -> None:
    rate, counts = code.RATES["H100"]
    assert code.Case("call", {}, 0, 0, int(rate)).roof("H100") == pytest.approx(1)
    assert code.Case("call", {}, 0, 0, 1, popcounts=int(2 * counts)).roof("H100") == pytest.approx(2)
