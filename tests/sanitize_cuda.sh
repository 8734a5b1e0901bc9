#!/usr/bin/env bash
# Runs the tests that use a GPU under compute-sanitizer: memcheck, then racecheck (shared memory), synccheck and
# initcheck: tests/sanitize_cuda.sh PYTHON [pytest arguments]. Refuses where there is no GPU or no compute-sanitizer.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$1
shift

if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "sanitize-cuda needs a GPU, and torch finds none that it can use; nothing was checked" >&2
  exit 2
fi
if ! command -v compute-sanitizer >/dev/null; then
  echo "sanitize-cuda needs compute-sanitizer on PATH (it comes with the CUDA toolkit); nothing was checked" >&2
  exit 2
fi

[ $# -gt 0 ] || set -- -q tests/ops/test_cuda.py tests/kernels
# Memory from the driver itself, not from torch's pool, so that a step past the end of a tensor is seen.
export DPAD_FAST_REQUIRE_CUDA=1 PYTORCH_NO_CUDA_MEMORY_CACHING=1
for check in memcheck racecheck synccheck initcheck; do
  echo "== $check"
  # Graphs cannot be captured without torch's pool.
  compute-sanitizer --tool "$check" --error-exitcode 1 --kernel-name-exclude regex:at::native \
    "$python" -m pytest -p no:cacheprovider "$@" -k "not graphs"
done
