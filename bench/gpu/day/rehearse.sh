#!/usr/bin/env bash
# Rehearses run.sh on the CPU: `make gpu-day DEVICE=cpu`. In an environment that holds just what the borrowed machine
# holds, and the wheels that are taken along, and in a copy of the tree without network where the system allows it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
compgen -G '.gpu/_C.cpython-312-*.so' >/dev/null || bench/gpu/day/prepare.sh
python=${PYTHON312:-}
for candidate in "$HOME"/.pyenv/versions/3.12*/bin/python3.12 python3.12; do
  [ -n "$python" ] || ! "$candidate" -c '' 2>/dev/null || python=$candidate
done
there=$PWD/build/gpu-day
if [ ! -e "$there/ready" ]; then
  rm -rf "$there"
  "$python" -m venv "$there"
  # shellcheck disable=SC2086
  "$there/bin/pip" install -q ${PIP_FLAGS:-} torch==2.11.0 torchvision==0.26.0 triton==3.6.0 transformers==5.17.0 timm \
    numpy==2.5.2 pillow opencv-python-headless pyyaml safetensors rich pytest pytest-xdist pytest-timeout hypothesis
  touch "$there/ready"
fi
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z -co --exclude-standard | xargs -0 cp -P --parents -t "$copy"
cp -r .gpu "$copy/"
alone=()
unshare -n true 2>/dev/null && alone=(unshare -n)
export DEVICE=cpu PYTHON=$there/bin/python RUNS=${RUNS:-2} QUERIES=${QUERIES:-1} EQUALITY=${EQUALITY:-200} OP_RUNS=9 WORKERS=2
export OUT=${OUT:-$PWD/build/gpu-day-out} TRITON_INTERPRET=1
status=0
"${alone[@]}" bash "$copy/bench/gpu/day/run.sh" || status=$?
echo "its files: $OUT"
exit "$status"
