#!/usr/bin/env bash
# The run that prepare.sh prepares. A stage has its own limit and stops no other; what they found lies in $OUT.
cd "$(dirname "${BASH_SOURCE[0]}")/../../.." || exit 1
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1 OUT=${OUT:-/tmp/gpu-day}
device=${DEVICE:-cuda} # cpu rehearses the stages that a CPU can run
[ "$device" = cpu ] || export DPAD_FAST_REQUIRE_CUDA=1
mkdir -p "$OUT"
began=$SECONDS
say() { echo "== $((SECONDS - began)) s: $*"; }
stage() { # stage NAME SECONDS COMMAND...: prints how it ended and the last lines of what it said
  local name=$1 limit=$2
  shift 2
  timeout -k 5 "$limit" "$@" >"$OUT/$name.txt" 2>&1
  say "$name ended with $?"
  grep -E '^(FAILED|ERROR)|passed|failed|decisions|ERROR SUMMARY' "$OUT/$name.txt" | tail -n 25 | cut -c1-180
}
if [ -d .gpu/wheels ]; then
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target /tmp/gpu-day-site .gpu/wheels/*.whl ||
    say "the wheels could not be installed"
  export PYTHONPATH=/tmp/gpu-day-site:$PWD
fi
if [ "$device" = cuda ] && ! python3 -c 'import dpad_fast._C as c; c.cuda_pack' 2>/dev/null; then
  say "the extension that was brought along does not load or lacks CUDA; building"
  DPAD_FAST_CUDA=on DPAD_FAST_CUDA_ARCHITECTURES=90-real stage build 120 python3 setup.py -q build_ext --inplace
fi
{ nvidia-smi -L; python3 -m dpad_fast.info; } >"$OUT/info.txt" 2>&1
workers=$(python3 -c 'import xdist' 2>/dev/null && echo "-n 6")
# shellcheck disable=SC2086
stage tests 170 python3 -m pytest -q $workers -W default -p no:cacheprovider -rf --durations 8 \
  tests/kernels tests/ops/test_cuda.py tests/clip/test_gpu_encoder.py tests/clip/tower/test_gpu_attention.py
stage reward 120 python3 -m bench.reward --device "$device" --runs "${RUNS:-15}" --queries "${QUERIES:-16}" --out "$OUT"
if [ "$device" = cuda ]; then
  stage ops 120 python3 -m bench.gpu --runs 31
  cp bench/results/gpu.csv "$OUT/" 2>/dev/null
  for tool in memcheck racecheck; do
    left=$((${LIMIT:-480} - (SECONDS - began)))
    [ $left -gt 40 ] && command -v compute-sanitizer >/dev/null || continue
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 stage "$tool" $((left / 2)) compute-sanitizer --tool "$tool" --error-exitcode 1 \
      python3 -m pytest -q -W default -p no:cacheprovider tests/ops/test_cuda.py -k 'every_bit and not 480'
  done
fi
say "done; results in $OUT"
