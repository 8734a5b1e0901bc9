#!/usr/bin/env bash
# Builds the core and its host tests for this processor and, with a cross compiler and QEMU, for 64-bit Arm, runs each with
# every instruction set, and compares what they print: tests/portable.sh CMAKE. Debian: g++-aarch64-linux-gnu, qemu-user.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cmake=$1
out=build/portable

build() {  # name, further arguments of CMake
  "$cmake" -S . -B "$out/$1" -DCMAKE_BUILD_TYPE=Release -DDPAD_FAST_TESTS=ON -DDPAD_FAST_WERROR=ON "${@:2}" >/dev/null
  "$cmake" --build "$out/$1" --target portable core_tests -j 2
}

build host
for level in scalar avx2 avx512 best; do
  DPAD_FAST_SIMD=$level "$out/host/core_tests" | tail -n 1
  DPAD_FAST_SIMD=$level "$out/host/portable" | tee "$out/$level.txt"
  cmp "$out/scalar.txt" "$out/$level.txt"
done
if ! command -v aarch64-linux-gnu-g++ qemu-aarch64 >/dev/null; then
  echo "64-bit Arm left out: aarch64-linux-gnu-g++ and qemu-aarch64 are not both here"
  exit
fi
build aarch64 -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++
arm() { qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu "$@"; }
for level in scalar neon best; do
  export DPAD_FAST_SIMD=$level
  arm "$out/aarch64/core_tests" | tail -n 1
  arm "$out/aarch64/portable" | tee "$out/aarch64-$level.txt"
  cmp "$out/scalar.txt" "$out/aarch64-$level.txt"
done
echo "64-bit Arm agrees"
