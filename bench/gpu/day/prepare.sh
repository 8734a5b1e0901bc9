#!/usr/bin/env bash
# Prepares one run on a borrowed machine with a GPU and no network: `make gpu-day`. Fills .gpu/ with the wheels that such
# a machine lacks and with an extension for Python 3.12 and compute capability 9.0; refuses where all that has to travel
# is more than MAX_MIB. Needs nvcc and python3.12 (or PYTHON312=/path/to/python3.12). Prepare again when csrc/ changed.
# `make gpu-day DEVICE=cpu` rehearses the run on this machine (rehearse.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
python=${PYTHON312:-}
for candidate in "$HOME"/.pyenv/versions/3.12*/bin/python3.12 python3.12; do # a shim of pyenv may exist and not run
  [ -n "$python" ] || ! "$candidate" -c '' 2>/dev/null || python=$candidate
done
[ -n "$python" ] || { echo "python3.12 was not found: set PYTHON312" >&2; exit 1; }
mkdir -p .gpu/wheels
find .gpu/wheels -name '*.whl' ! -name 'cvcuda*' -delete # two versions of one package cannot be installed
platforms=()
for name in manylinux_2_28_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64; do platforms+=(--platform "$name"); done
fetch() { # fetch FOLDER PACKAGE...: wheels for Python 3.12, without what they require
  local folder=$1
  shift
  "$python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    --abi cp312 --abi abi3 --abi none "${platforms[@]}" -d "$folder" "$@"
}
# Of TRL and verl only files are read: their advantages.
fetch .gpu/wheels open_clip_torch ftfy wcwidth kornia kornia_rs pycocotools trl verl
if [ "${CVCUDA:-1}" = 1 ] && ! compgen -G '.gpu/wheels/cvcuda*' >/dev/null; then
  mkdir -p .gpu/whole
  fetch .gpu/whole cvcuda-cu13 && "$python" bench/gpu/day/trim.py .gpu/whole/cvcuda*.whl .gpu/wheels --capability 90 --tag cp312 ||
    echo "CV-CUDA is not taken along" >&2
  rm -rf .gpu/whole
fi
"$python" -m venv .gpu/build
.gpu/build/bin/pip install -q "setuptools>=77" cmake ninja "pybind11>=2.13" wheel
# Not in place: the extension of a developer with Python 3.12 stays as it is.
if ! DPAD_FAST_KEEP_EXTENSION=0 DPAD_FAST_CUDA=on DPAD_FAST_CUDA_ARCHITECTURES=90-real \
  PATH="$PWD/.gpu/build/bin:$PATH" \
  .gpu/build/bin/python setup.py -q build_ext --build-lib .gpu/lib --build-temp .gpu/temp >.gpu/build.log 2>&1; then
  tail -n 20 .gpu/build.log >&2
  exit 1
fi
mv -f .gpu/lib/dpad_fast/_C.cpython-312-*.so .gpu/
rm -rf .gpu/build .gpu/build.log .gpu/lib .gpu/temp

# What travels: files that git knows or would take, and .gpu.
max=$((${MAX_MIB:-64} << 20))
travels() {
  { git ls-files -z -co --exclude-standard && find .gpu -type f -print0; } | du -cb --files0-from=- | tail -n 1 | cut -f 1
}
if [ "$(travels)" -gt "$max" ] && compgen -G '.gpu/wheels/cvcuda*' >/dev/null; then
  rm -f .gpu/wheels/cvcuda*
  echo "CV-CUDA is not taken along: too large" >&2
fi
size=$(travels)
if [ "$size" -gt "$max" ]; then
  echo "$((size >> 20)) MiB would travel, at most $((max >> 20)) may: see du -a .gpu" >&2
  exit 1
fi
echo "$(((size + (1 << 20) - 1) >> 20)) MiB travel (at most $((max >> 20))): this tree and .gpu"
echo "git ignores .gpu: carry it along by name (\`.gpu\`), or what is there is not what was prepared."
echo "On the machine with the GPU, in a copy of the tree with .gpu, one command of at most 480 seconds:"
echo
echo "bash bench/gpu/day/run.sh"
echo
echo "Then, here, with the folder of its 8 files: python -m bench.gpu.outcome FOLDER --keep"
