#!/usr/bin/env bash
# Builds the fuzz target with clang: libFuzzer, ASan and UBSan over the same sources that the extension is made of.
# Usage: tests/fuzz/build.sh OUTPUT. CLANGXX names the compiler.
set -euo pipefail
cd "$(dirname "$0")/../.."
output=$1
objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT
flags=(-std=c++17 -O1 -g -ffp-contract=off -fno-omit-frame-pointer -Icsrc
       -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all)
sources=(tests/fuzz/fuzz_masks.cpp csrc/core/base/parallel.cpp csrc/core/masks/{masks,polygon_marks,polygons,rle}.cpp
         csrc/simd/{choose,cpu_features}.cpp csrc/simd/masks/{scalar,table}.cpp)
[ "$(uname -m)" = x86_64 ] && sources+=(csrc/simd/masks/{avx2,avx512}.cpp)
for source in "${sources[@]}"; do
  extra=()
  case $source in
    */avx2.cpp) extra=(-mavx2 -mpopcnt -mbmi -mbmi2) ;;
    */avx512.cpp) extra=(-mavx2 -mpopcnt -mbmi -mbmi2 -mavx512{f,bw,dq,vl,vpopcntdq,vbmi,vbmi2}) ;;
  esac
  "${CLANGXX:-clang++}" "${flags[@]}" "${extra[@]}" -c "$source" -o "$objects/${source//\//_}.o"
done
mkdir -p "$(dirname "$output")"
"${CLANGXX:-clang++}" -fsanitize=fuzzer,address,undefined -pthread "$objects"/*.o -o "$output"
