"""The bodies of csrc/cuda on the host: built once by CMake, called through `dpad_fast.ops._mask_cuda` as on a GPU."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dpad_fast.ops import _mask_cuda

ROOT = Path(__file__).parents[2]
STRIDES = (1, -1, 37)  # orders in which the threads of a block are played


class Stream(ctypes.Structure):
    _fields_ = (("device", ctypes.c_int), ("handle", ctypes.c_void_p))


class Polygons(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("vertices", "ring_starts", "object_starts")),
        *((name, ctypes.c_int64) for name in ("vertex_count", "ring_count", "n")),
        ("rule", ctypes.c_char_p),
    )


class HostLaunchers:
    """Stands in for the extension: `cuda_pack` and the others, played on the host."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.set_stride = library.dpad_host_thread_stride

    def cuda_bands(self, height: int, width: int) -> int:
        self.library.dpad_cuda_bands.restype = ctypes.c_int64
        return int(self.library.dpad_cuda_bands(ctypes.c_int64(height), ctypes.c_int64(width)))

    def __getattr__(self, name: str) -> Callable[..., None]:
        function = getattr(self.library, f"dpad_{name}")
        function.restype = ctypes.c_char_p

        def call(*arguments: Any) -> None:
            *values, stream = arguments
            head: list[Any] = []
            if isinstance(values[0], tuple):
                (vertices, vertex_count, rings, ring_count, objects, n), rule, *values = values
                batch = Polygons(vertices, rings, objects, vertex_count, ring_count, n, rule.encode())
                head = [ctypes.byref(batch)]
            numbers = [ctypes.c_double(v) if isinstance(v, float) else ctypes.c_int64(v) for v in values]
            error = function(*head, *numbers, Stream(*stream))
            if error is not None:
                raise RuntimeError(error.decode())

        return call


@pytest.fixture(scope="session")
def build_host_target() -> Callable[[str], Path]:
    """Builds a target of CMakeLists.txt that needs no Python, and gives the folder that it is in."""
    beside = str(Path(sys.executable).parent)
    cmake = shutil.which("cmake", path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    if cmake is None or shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("needs CMake and a C++ compiler")
    sanitize = "ON" if os.environ.get("DPAD_FAST_SANITIZED") == "1" else "OFF"
    build = ROOT / "build" / ("tests-sanitize" if sanitize == "ON" else "tests")
    options = (
        "-DDPAD_FAST_TESTS=ON",
        "-DDPAD_FAST_CUDA=off",
        "-DDPAD_FAST_WERROR=ON",
        "-DCMAKE_BUILD_TYPE=Release",
        f"-DDPAD_FAST_SANITIZE={sanitize}",
    )
    plain = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # `make sanitize` sets it

    def make(target: str) -> Path:
        for command in (
            [cmake, "-S", str(ROOT), "-B", str(build), *options],
            [cmake, "--build", str(build), "--target", target, "--parallel", "2"],
        ):
            done = subprocess.run(command, env=plain, check=False, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return build

    return make


@pytest.fixture(scope="session")
def library(build_host_target: Callable[[str], Path]) -> ctypes.CDLL:
    return ctypes.CDLL(str(build_host_target("dpad_cuda_bodies") / "libdpad_cuda_bodies.so"))


@pytest.fixture
def launchers(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostLaunchers]:
    """`dpad_fast.ops._mask_cuda` takes CPU tensors and runs the bodies of csrc/cuda on them."""
    host = HostLaunchers(library)
    monkeypatch.setattr(_mask_cuda, "_launchers", lambda op, device: host)
    monkeypatch.setattr(_mask_cuda, "_stream", lambda device: (0, 0))
    yield host
    host.set_stride(1)


@pytest.fixture(params=STRIDES)
def thread_order(request: pytest.FixtureRequest, launchers: HostLaunchers) -> int:
    """The result must not depend on the order of threads within a phase: that would be a race on a GPU."""
    launchers.set_stride(request.param)
    return int(request.param)
