#include "simd/digits/table.h"

namespace dpad {

namespace {

constexpr Candidate<DigitTable> kCandidates[] = {
#if defined(DPAD_FAST_AMX)
    // amx.cpp uses AVX-512 with DQ too, and the tower's other loops need VNNI.
    {&kDigitAmx, [](const CpuFeatures& cpu) { return cpu.avx512 && cpu.avx512dq && cpu.avx512vnni && claim_amx(); }},
#endif
#if defined(DPAD_FAST_I8MM)
    {&kDigitI8mm, [](const CpuFeatures& cpu) { return cpu.neon && cpu.i8mm; }},
#endif
    {&kDigitScalar, runs_anywhere},
};

}  // namespace

const DigitTable& digit_table(SimdLevel limit) { return choose(kCandidates, limit); }

const DigitTable& digit_table() {
  static const DigitTable& table = choose(kCandidates);
  return table;
}

}  // namespace dpad
