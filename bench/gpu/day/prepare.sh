#!/usr/bin/env bash
# Prepares one run on a borrowed machine with a GPU and no network: `make gpu-day`. Fills .gpu/ with the wheels that such
# a machine lacks and builds an extension for Python 3.12 and compute capability 9.0. Needs nvcc and python3.12 (or
# PYTHON312=/path/to/python3.12). Prepare again when csrc/ changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
python=${PYTHON312:-}
for candidate in "$HOME"/.pyenv/versions/3.12*/bin/python3.12 python3.12; do # a shim of pyenv may exist and not run
  [ -n "$python" ] || ! "$candidate" -c '' 2>/dev/null || python=$candidate
done
[ -n "$python" ] || { echo "python3.12 was not found: set PYTHON312" >&2; exit 1; }
mkdir -p .gpu/wheels
platforms=()
for name in manylinux_2_28_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64; do platforms+=(--platform "$name"); done
"$python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
  --abi cp312 --abi abi3 --abi none "${platforms[@]}" -d .gpu/wheels \
  open_clip_torch ftfy wcwidth kornia kornia_rs pycocotools
"$python" -m venv .gpu/build
.gpu/build/bin/pip install -q "setuptools>=77" cmake ninja "pybind11>=2.13" wheel
if ! DPAD_FAST_CUDA=on DPAD_FAST_CUDA_ARCHITECTURES=90-real PATH="$PWD/.gpu/build/bin:$PATH" \
  .gpu/build/bin/python setup.py -q build_ext --inplace >.gpu/build.log 2>&1; then
  tail -n 20 .gpu/build.log >&2
  exit 1
fi
rm -rf .gpu/build
echo "On the machine with the GPU, in a copy of this tree: bash bench/gpu/day/run.sh"
echo "Take along what git ignores: .gpu $(ls dpad_fast/_C.cpython-312-*.so)"
