// The one place that picks an instruction set. An op's inner loops are in tables of functions, csrc/simd/*/table.h, one
// table for each level that is faster. The best table that this processor runs and DPAD_FAST_SIMD allows is used.
#pragma once

#include <cstddef>
#include <string>

#include "simd/cpu_features.h"

namespace dpad {

// In ascending order: a level that is allowed allows those before it.
enum class SimdLevel { scalar, avx2, avx512, amx };

const char* simd_level_name(SimdLevel level);

// The level of this name, or the highest for "best". Throws std::invalid_argument that begins with `what` and names the
// known ones.
SimdLevel simd_level_named(const char* what, const std::string& name);

// The highest level that the environment variable DPAD_FAST_SIMD allows; every level where it is not set or empty. It
// is read once. Where its value is no level, each call throws as simd_level_named does.
SimdLevel allowed_simd_level();

// A table, and whether a processor runs it. A table says in `level` which one it is.
template <typename Table>
struct Candidate {
  const Table* table;
  bool (*runs)(const CpuFeatures& cpu);
};

inline bool runs_anywhere(const CpuFeatures&) { return true; }

// The first candidate that this processor runs, and whose level is allowed and at most `limit`. Candidates are sorted
// from the best to plain C++.
template <typename Table, size_t kCount>
const Table& choose(const Candidate<Table> (&candidates)[kCount], SimdLevel limit = SimdLevel::amx) {
  const SimdLevel allowed = allowed_simd_level();
  for (const Candidate<Table>& candidate : candidates) {
    const SimdLevel level = candidate.table->level;
    if (level <= limit && level <= allowed && candidate.runs(cpu_features())) return *candidate.table;
  }
  return *candidates[kCount - 1].table;
}

}  // namespace dpad
