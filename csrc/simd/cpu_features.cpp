#include "simd/cpu_features.h"

namespace dpad {

SimdLevel best_simd_level() {
#if defined(__x86_64__) && defined(__GNUC__)
  // __builtin_cpu_supports reads CPUID and XCR0 both, so a kernel that does not save zmm registers reports no AVX-512.
  static const SimdLevel level = [] {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
      return SimdLevel::avx512;
    if (__builtin_cpu_supports("avx2")) return SimdLevel::avx2;
    return SimdLevel::scalar;
  }();
  return level;
#else
  return SimdLevel::scalar;
#endif
}

const char* simd_level_name(SimdLevel level) {
  switch (level) {
    case SimdLevel::avx512:
      return "avx512";
    case SimdLevel::avx2:
      return "avx2";
    default:
      return "scalar";
  }
}

}  // namespace dpad
