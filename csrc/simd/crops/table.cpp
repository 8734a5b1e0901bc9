#include "simd/crops/table.h"

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "simd/cpu_features.h"
#include "simd/crops/scalar.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#endif

namespace dpad {

namespace {

#if defined(__x86_64__) && defined(__GNUC__)

// Every processor with AVX2 so far has both, but a hypervisor may hide them.
bool has_fma_and_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0) return false;
  return (ecx & bit_FMA) != 0 && (ecx & bit_F16C) != 0;
}

SimdLevel usable_level() {
  static const SimdLevel level = [] {
    const char* wish = std::getenv("DPAD_FAST_SIMD");
    SimdLevel most = has_fma_and_f16c() ? best_simd_level() : SimdLevel::scalar;
    if (wish != nullptr && std::strcmp(wish, "scalar") == 0) most = SimdLevel::scalar;
    if (wish != nullptr && std::strcmp(wish, "avx2") == 0 && most > SimdLevel::avx2) most = SimdLevel::avx2;
    return most;
  }();
  return level;
}

#endif

float product(float value, float inverse, float rest) { return std::fma(value, inverse, value * rest); }

}  // namespace

Normalisation make_normalisation(float mean, float std) {
  const float inverse = 1.0f / std;
  const float rest = static_cast<float>(1.0 / static_cast<double>(std) - static_cast<double>(inverse));
  Normalisation scale{mean, std, inverse, rest, true};
  for (int byte = 0; byte < 256; ++byte) {
    const float value = static_cast<float>(byte * (1 / 255.0));
    const float scaled = product(static_cast<float>(byte), kInverse255, kRest255);
    if (scaled != value || product(value - mean, inverse, rest) != (value - mean) / std) scale.multiply = false;
  }
  return scale;
}

const ResampleKernels& resample_kernels(SimdLevel level) {
#if defined(__x86_64__) && defined(__GNUC__)
  const SimdLevel chosen = level < usable_level() ? level : usable_level();
  if (chosen >= SimdLevel::avx512) return kResampleAvx512;
  if (chosen >= SimdLevel::avx2) return kResampleAvx2;
#else
  (void)level;
#endif
  return kResampleScalar;
}

}  // namespace dpad
