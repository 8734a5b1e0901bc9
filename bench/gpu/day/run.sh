#!/usr/bin/env bash
# The run that prepare.sh prepares: GPU tests, reward stage, ops, memcheck and racecheck, profiles. A stage has a limit of
# its own and stops no other, and all end within LIMIT seconds: the limits of all stages fit into it, and of a shorter
# time each gets its share. What they found lies in $OUT, in at most 8 files. The status is 1 where a stage failed or had
# no time left.
cd "$(dirname "${BASH_SOURCE[0]}")/../../.." || exit 1
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1 OUT=${OUT:-/tmp/gpu-day}
device=${DEVICE:-cuda} # cpu rehearses all that a CPU can run, on small sizes
python=${PYTHON:-python3}
limit=${LIMIT:-470}
later=455 # seconds that the stages below may take in all, those that have begun left out
began=$SECONDS
failed=0 # 1 when a stage failed or had no time
mkdir -p "$OUT"
for name in summary tests reward ops sanitizers profiles; do rm -f "$OUT/$name.txt"; done
rm -f "$OUT/reward-gpu.csv" "$OUT/gpu.csv"
[ "$device" = cpu ] || export DPAD_FAST_REQUIRE_CUDA=1

say() { echo "== $((SECONDS - began)) s: $*" | tee -a "$OUT/summary.txt"; }

stage() { # stage FILE SECONDS COMMAND...: appends to the file; prints how it ended and the lines that matter
  # Of the command, a word such as 60% becomes that part of the seconds that the stage has.
  local name=$1 seconds=$2 left=$((limit - (SECONDS - began))) said status share word words=()
  shift 2
  share=$((left * seconds / later))
  later=$((later - seconds))
  [ "$share" -ge "$seconds" ] || seconds=$share
  for word in "$@"; do
    [[ $word =~ ^([0-9]+)%$ ]] && word=$((seconds * BASH_REMATCH[1] / 100))
    words+=("$word")
  done
  set -- "${words[@]}"
  if [ "$seconds" -lt 5 ]; then
    say "no time left for: $*"
    failed=1
    return
  fi
  said=$(mktemp)
  echo "== $*" >"$said"
  timeout -k 5 "$seconds" "$@" >>"$said" 2>&1
  status=$?
  say "$name ended with $status, within $seconds s: $*"
  grep -E '^(FAILED|ERROR|wrong:|failed:|no time|ratio:)|passed|failed|^decisions|^outputs|collected|ERROR SUMMARY|RACECHECK SUMMARY' \
    "$said" | tail -n 25 | cut -c1-180 | tee -a "$OUT/summary.txt"
  cat "$said" >>"$OUT/$name.txt"
  rm -f "$said"
  [ "$status" = 0 ] || failed=1
}

# --- what was brought along ---

site=$(mktemp -d)
if [ -d .gpu/wheels ]; then
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" .gpu/wheels/*.whl ||
    say "the wheels could not be installed"
fi
export PYTHONPATH=$site:$PWD
cp -f .gpu/_C.*.so dpad_fast/ 2>/dev/null
has_cuda() { "$python" -c 'import dpad_fast._native.extension as e; e.C.cuda_pack' 2>/dev/null; }
if [ "$device" = cuda ] && ! has_cuda; then
  say "the extension that was brought along does not load or lacks CUDA"
  later=$((later + 120))
  DPAD_FAST_CUDA=on DPAD_FAST_CUDA_ARCHITECTURES=90-real stage tests 120 "$python" setup.py -q build_ext --inplace
fi
{
  date -u +%Y-%m-%d
  nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
  "$python" -m dpad_fast.info
} >>"$OUT/summary.txt" 2>&1
say "ready"

# --- the stages, the most important first ---

mapfile -t files < <(grep -rlE --include='test_*.py' 'mark\.gpu\b' tests | sort)
kernels=(tests/kernels)
if [ "$device" = cpu ] && ! "$python" -c 'import numpy; int(numpy.zeros(1))' 2>/dev/null; then
  say "Triton's interpreter does not run with this NumPy: the tests of kernels are left out"
  kernels=()
fi
workers=$("$python" -c 'import xdist' 2>/dev/null && echo "-n ${WORKERS:-$(($(nproc) < 12 ? $(nproc) : 12))}")
# shellcheck disable=SC2086
stage tests 80 "$python" -m pytest -q $workers -W default -p no:cacheprovider --continue-on-collection-errors -rf \
  --durations 8 -m gpu "${files[@]}" "${kernels[@]}"
small=()
[ "$device" = cuda ] || small=(--tiny)
stage reward 110 "$python" -m bench.reward --device "$device" --runs "${RUNS:-25}" --queries "${QUERIES:-16}" \
  --seconds 60% --out "$OUT" "${small[@]}"
stage reward 55 "$python" -m bench.reward --device "$device" --equality "${EQUALITY:-20000}" "${small[@]}"
stage ops 60 "$python" -m bench.gpu --device "$device" --runs "${OP_RUNS:-31}" --seconds 67% --out "$OUT" "${small[@]}"
# A dozen tests; a graph cannot be captured without torch's pool of memory.
chosen='(every_bit and not 480) or gpu_agrees_with_cpu'
tools=()
if [ "$device" = cuda ]; then
  command -v compute-sanitizer >/dev/null && tools=(memcheck racecheck)
else # which those would be
  stage sanitizers 50 "$python" -m pytest -q -W default -p no:cacheprovider --collect-only -m gpu tests/ops/test_cuda.py \
    -k "$chosen"
fi
for tool in "${tools[@]}"; do
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 stage sanitizers 25 compute-sanitizer --tool "$tool" --error-exitcode 1 \
    "$python" -m pytest -q -W default -p no:cacheprovider -m gpu tests/ops/test_cuda.py -k "$chosen"
done
stage profiles 40 "$python" -m bench.gpu.profiles --device "$device" "${small[@]}"
if [ "$device" = cuda ] && command -v ncu >/dev/null; then
  metrics=gpu__time_duration.sum,dram__bytes.sum,dram__throughput.avg.pct_of_peak_sustained_elapsed
  metrics+=,sm__throughput.avg.pct_of_peak_sustained_elapsed,sm__warps_active.avg.pct_of_peak_sustained_active
  stage profiles 60 ncu --clock-control none --metrics "$metrics" --print-summary per-kernel --kernel-name-base demangled \
    --kernel-name 'regex:Body|^(weights|first_pass|second_pass|group_advantage|discriminative_reward)_kernel' --launch-count 150 \
    "$python" -m bench.gpu --once
fi
"$python" -m bench.gpu.outcome "$OUT" 2>&1 | tee -a "$OUT/summary.txt"
rm -rf "$site"
count=$(find "$OUT" -type f | wc -l)
say "done; $count files in $OUT"
[ "$count" -le 8 ] && [ "$failed" = 0 ]
