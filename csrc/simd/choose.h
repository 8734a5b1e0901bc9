// The one place that picks an instruction set. An op's inner loops are in tables of functions, csrc/simd/*/table.h, one
// table for each level that is faster. The best table that this processor runs and DPAD_FAST_SIMD allows is used.
#pragma once

#include <cstddef>
#include <string>

#include "simd/cpu_features.h"

namespace dpad {

// In ascending order for each architecture: x86-64's, then 64-bit Arm's.
enum class SimdLevel { scalar, avx2, avx512, amx, neon, i8mm };

#if defined(__aarch64__)
constexpr SimdLevel kBestLevel = SimdLevel::i8mm;
#else
constexpr SimdLevel kBestLevel = SimdLevel::amx;
#endif

const char* simd_level_name(SimdLevel level);

// The level of this name, or kBestLevel for "best". Throws std::invalid_argument that begins with `what` and names the
// known ones: those of every architecture.
SimdLevel simd_level_named(const char* what, const std::string& name);

// The highest level that the environment variable DPAD_FAST_SIMD allows; every level where it is not set or empty. It
// is read once. Where its value is no level, each call throws as simd_level_named does.
SimdLevel allowed_simd_level();

// Whether a limit lets a level be used: plain C++ always, and the levels of the limit's architecture up to it.
constexpr bool allows(SimdLevel limit, SimdLevel level) {
  const bool same_architecture = (limit >= SimdLevel::neon) == (level >= SimdLevel::neon);
  return level == SimdLevel::scalar || (same_architecture && level <= limit);
}

// A table, and whether a processor runs it. A table says in `level` which one it is.
template <typename Table>
struct Candidate {
  const Table* table;
  bool (*runs)(const CpuFeatures& cpu);
};

inline bool runs_anywhere(const CpuFeatures&) { return true; }

// The first candidate that this processor runs, and whose level both DPAD_FAST_SIMD and `limit` allow. Candidates are
// sorted from the best to plain C++.
template <typename Table, size_t kCount>
const Table& choose(const Candidate<Table> (&candidates)[kCount], SimdLevel limit = kBestLevel) {
  const SimdLevel allowed = allowed_simd_level();
  for (const Candidate<Table>& candidate : candidates) {
    const SimdLevel level = candidate.table->level;
    if (allows(limit, level) && allows(allowed, level) && candidate.runs(cpu_features())) return *candidate.table;
  }
  return *candidates[kCount - 1].table;
}

}  // namespace dpad
