#include "simd/tower/table.h"

namespace dpad {

namespace {

constexpr Candidate<TowerTable> kCandidates[] = {
#if defined(__x86_64__)
    {&kTowerAvx512, [](const CpuFeatures& cpu) { return cpu.avx512 && cpu.avx512dq && cpu.avx512vnni; }},
#elif defined(__aarch64__)
    {&kTowerNeon, [](const CpuFeatures& cpu) { return cpu.neon; }},
#endif
    {&kTowerScalar, runs_anywhere},
};

}  // namespace

const TowerTable& tower_table(SimdLevel limit) { return choose(kCandidates, limit); }

const TowerTable& tower_table() {
  static const TowerTable& table = choose(kCandidates);
  return table;
}

}  // namespace dpad
