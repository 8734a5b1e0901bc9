"""Builds the C++ extension with CMake and maps the top-level kernels/ folder into the package.

Why not plain setuptools: csrc/simd needs one set of compiler flags per file, and CUDA is optional, which CMake says in
a line each. Why the package map: kernels/ has no __init__.py on purpose (it would shadow Hugging Face's `kernels`
package whenever this folder is on sys.path), so setuptools must be told where `dpad_fast.kernels` lives.

Environment: DPAD_FAST_CUDA=auto|on|off, DPAD_FAST_CUDA_ARCHITECTURES (such as "80-real;90"), DPAD_FAST_WERROR=0|1,
DPAD_FAST_SANITIZE=0|1, CMAKE_ARGS for anything else. DPAD_FAST_KEEP_EXTENSION=1 takes the extension that is in the
source folder already, for a further environment of the same Python.
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
DATA_FILES = [
    *(f"checkpoints/*/*.{kind}" for kind in ("json", "jinja", "safetensors")),
    *(f"evaluate/report_assets/{name}" for name in ("*.css", "*.js", "vendor/*/*")),
]
OPTIONS = {
    "DPAD_FAST_CUDA": "auto", "DPAD_FAST_CUDA_ARCHITECTURES": "", "DPAD_FAST_WERROR": "0", "DPAD_FAST_SANITIZE": "0",
}  # fmt: skip


class CMakeBuild(build_ext):
    """Configure once, build the one target, and leave the shared object where setuptools looks for it."""

    def build_extension(self, ext: Extension) -> None:
        """Run CMake for the single extension of this project."""
        import pybind11

        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        built = ROOT / "dpad_fast" / target.name
        if os.environ.get("DPAD_FAST_KEEP_EXTENSION") == "1" and built.is_file():
            if built != target:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(built, target)
            return
        build = Path(self.build_temp).resolve()
        build.mkdir(parents=True, exist_ok=True)
        options = {name: os.environ.get(name, default) for name, default in OPTIONS.items()}
        configure = [
            "cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja",
            f"-DCMAKE_BUILD_TYPE={'Debug' if self.debug else 'Release'}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={target.parent}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            *(f"-D{name}={value}" for name, value in options.items()),
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]  # fmt: skip
        print("dpad-fast configuration:", ", ".join(f"{k}={v}" for k, v in options.items()), flush=True)
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build), "--target", "_C"], check=True)


setup(
    packages=[*find_packages(include=["dpad_fast", "dpad_fast.*"]), "dpad_fast.kernels"],
    package_dir={"dpad_fast": "dpad_fast", "dpad_fast.kernels": "kernels"},
    package_data={"dpad_fast": ["py.typed", *DATA_FILES]},
    ext_modules=[Extension("dpad_fast._C", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
