#!/usr/bin/env bash
# Builds the extension with AddressSanitizer and UndefinedBehaviorSanitizer beside the ordinary one, and runs the op tests
# on it: tests/sanitize.sh PYTHON [pytest arguments]. The package is laid out again from links, so that what is installed
# stays as it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$(realpath -s "$1")
shift
build=build/sanitize
site=$build/site

rm -rf "$site"
mkdir -p "$site/dpad_fast"
for path in dpad_fast/*; do
  case $path in *.so | *.pyd) continue ;; esac
  ln -s "$(realpath "$path")" "$site/$path"
done
"$(dirname "$python")/cmake" -S . -B "$build/cmake" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DDPAD_FAST_SANITIZE=ON \
  -DDPAD_FAST_CUDA=off -DPython_EXECUTABLE="$python" -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" \
  -DCMAKE_MAKE_PROGRAM="$(dirname "$python")/ninja" -DCMAKE_LIBRARY_OUTPUT_DIRECTORY="$PWD/$site/dpad_fast" >/dev/null
"$(dirname "$python")/cmake" --build "$build/cmake" --target _C

# Python itself never frees all it allocates, hence no leak check; torch's own library is not instrumented.
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export PYTHONPATH=$PWD/$site PYTHONSAFEPATH=1 DPAD_FAST_SANITIZED=1
preload="$("${CXX:-g++}" -print-file-name=libasan.so) $("${CXX:-g++}" -print-file-name=libstdc++.so.6)"
LD_PRELOAD=$preload "$python" -c 'import dpad_fast, pathlib; from dpad_fast._native import extension as _extension
print("sanitized:", pathlib.Path(_extension.load().__file__).relative_to(pathlib.Path.cwd()))'
[ $# -gt 0 ] || set -- -q tests/ops tests/csrc tests/coco_mask tests/clip/tower/test_towers.py
LD_PRELOAD=$preload "$python" -m pytest "$@"
