#include "simd/masks/table.h"

namespace dpad {

namespace {

constexpr Candidate<MaskTable> kCandidates[] = {
#if defined(__x86_64__)
    // Ice Lake was the first processor with all of these.
    {&kMaskAvx512,
     [](const CpuFeatures& cpu) {
       return cpu.avx512 && cpu.avx512dq && cpu.avx512vpopcntdq && cpu.avx512vbmi && cpu.avx512vbmi2;
     }},
    {&kMaskAvx2, [](const CpuFeatures& cpu) { return cpu.avx2 && cpu.popcnt && cpu.bmi2; }},
#endif
    {&kMaskScalar, runs_anywhere},
};

}  // namespace

const MaskTable& mask_table() {
  static const MaskTable& table = choose(kCandidates);
  return table;
}

}  // namespace dpad
