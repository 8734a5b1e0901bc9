#include "simd/masks/table.h"

#include <cstdlib>
#include <cstring>

namespace dpad {

namespace {

const MaskKernels& choose() {
#if defined(__x86_64__)
  const char* wish = std::getenv("DPAD_FAST_SIMD");
  const bool lower = wish != nullptr && (std::strcmp(wish, "scalar") == 0 || std::strcmp(wish, "avx2") == 0);
  if (lower && std::strcmp(wish, "scalar") == 0) return kMaskKernelsScalar;
  const SimdLevel level = best_simd_level();
  const bool ice_lake = __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx512vbmi") &&
                        __builtin_cpu_supports("avx512vbmi2");
  if (!lower && level >= SimdLevel::avx512 && ice_lake) return kMaskKernelsAvx512;
  if (level >= SimdLevel::avx2 && __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("bmi2"))
    return kMaskKernelsAvx2;
#endif
  return kMaskKernelsScalar;
}

}  // namespace

const MaskKernels& mask_kernels() {
  static const MaskKernels& kernels = choose();
  return kernels;
}

}  // namespace dpad
