// Plain C++: what AMX's kernels are tested against.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

#if defined(DPAD_FAST_AMX)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "simd/digits/table.h"
#include "simd/tower/table.h"

namespace dpad {
namespace {

float to_digits(const float* x, int64_t count, int digits, int8_t* out, int64_t digit_stride, int64_t step_stride) {
  float largest = 0.0f, squares = 0.0f;
  for (int64_t i = 0; i < count; ++i) {
    squares += x[i] * x[i];
    largest = std::max(largest, std::fabs(x[i]));
  }
  const float norm = std::sqrt(squares);
  const bool finite = std::isfinite(norm), sound = finite && norm > kNothingInDigits;
  float by = sound ? kLargestDigits[digits] / largest : 0.0f;
  if (sound && digits == 2) by = std::min(by, kDigitNorm / norm);
  for (int64_t i = 0; i < (count + kDigitStep - 1) / kDigitStep * kDigitStep; ++i) {
    auto q = sound && i < count ? static_cast<int32_t>(std::nearbyint(x[i] * by)) : 0;
    for (int d = digits - 1; d >= 0; --d) {
      const auto digit = static_cast<int8_t>(q & 0xFF);
      out[i / kDigitStep * step_stride + d * digit_stride + i % kDigitStep] = digit;
      q = (q - digit) / 256;
    }
  }
  if (!finite) return std::numeric_limits<float>::quiet_NaN();
  return sound ? 1.0f / by : 0.0f;
}

void begin() {}
void end() {}

void multiply(const DigitProduct& p, int digits) {
  for (int64_t r = 0; r < p.rows; ++r) {
    const int8_t* row = p.a + r / kDigitRows * p.a_stride + r % kDigitRows * kDigitStep;
    for (int64_t c = 0; c < p.columns; ++c) {
      const int8_t* column = p.panel + c * 4;
      int64_t sums[4] = {};
      const int powers = digits == 2 ? 2 : 4;
      for (int64_t i = 0; i < p.steps * kDigitStep; ++i) {
        const int64_t s = i / kDigitStep, k = i % kDigitStep;
        for (int power = 0; power < powers; ++power)
          for (int d = std::max(0, power - digits + 1); d <= std::min(power, digits - 1); ++d) {
            const int64_t left = row[(s * digits + d) * kTileBytes + k];
            const int64_t right = column[s * p.panel_step + (power - d) * kTileBytes + k / 4 * 64 + k % 4];
            sums[power] += left * right;
          }
      }
      float value;
      if (digits == 2) {
        value = static_cast<float>(256 * sums[0] + sums[1]);
      } else {
        value = std::fma(static_cast<float>(sums[0]), 256.0f, static_cast<float>(sums[1]));
        value = std::fma(value, 256.0f, static_cast<float>(sums[2]));
        value = std::fma(static_cast<float>(sums[3]), 1.0f / 256.0f, value);
      }
      value = std::fma(value * p.row_scale[r], p.column_scale[c], p.bias == nullptr ? 0.0f : p.bias[c]);
      float& out = p.out[r * p.out_stride + c];
      if (p.add) value += out;
      out = p.quick_gelu ? value / (1.0f + std::exp(-1.702f * value)) : value;
    }
  }
}

#if defined(DPAD_FAST_AMX)
bool processor_has_amx() {
  unsigned a, b, c, d;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  constexpr unsigned kTile = 1u << 24, kInt8 = 1u << 25;
  return (d & kTile) != 0 && (d & kInt8) != 0;
}

// Linux gives tiles only to a process that asks, and threads and children inherit them; kernels before 5.16 say no.
bool system_lets_us() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

}  // namespace

const DigitKernels kDigitScalar = {to_digits, begin, end, multiply};

bool has_amx() {
#if defined(DPAD_FAST_AMX)
  static const bool found = [] {
    const char* wish = std::getenv("DPAD_FAST_SIMD");
    if (wish != nullptr && std::strcmp(wish, "avx512") == 0) return false;
    return has_tower_avx512() && processor_has_amx() && system_lets_us();
  }();
  return found;
#else
  return false;
#endif
}

}  // namespace dpad
