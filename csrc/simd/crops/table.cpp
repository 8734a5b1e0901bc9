#include "simd/crops/table.h"

#include <cmath>

#include "simd/crops/scalar.h"

namespace dpad {

namespace {

constexpr Candidate<CropTable> kCandidates[] = {
#if defined(__x86_64__)
    // Every processor with AVX2 so far has FMA and F16C, but a hypervisor may hide them.
    {&kCropAvx512, [](const CpuFeatures& cpu) { return cpu.avx512 && cpu.fma && cpu.f16c; }},
    {&kCropAvx2, [](const CpuFeatures& cpu) { return cpu.avx2 && cpu.fma && cpu.f16c; }},
#endif
    {&kCropScalar, runs_anywhere},
};

float product(float value, float inverse, float inverse_error) {
  return std::fma(value, inverse, value * inverse_error);
}

}  // namespace

Normalisation make_normalisation(float mean, float std) {
  const float inverse = 1.0f / std;
  const float inverse_error = static_cast<float>(1.0 / static_cast<double>(std) - static_cast<double>(inverse));
  Normalisation scale{mean, std, inverse, inverse_error, true};
  for (int byte = 0; byte < 256; ++byte) {
    const float value = static_cast<float>(byte * (1 / 255.0));
    const float scaled = product(static_cast<float>(byte), kInverse255, kInverse255Error);
    if (scaled != value || product(value - mean, inverse, inverse_error) != (value - mean) / std)
      scale.multiply = false;
  }
  return scale;
}

const CropTable& crop_table(SimdLevel limit) { return choose(kCandidates, limit); }

}  // namespace dpad
