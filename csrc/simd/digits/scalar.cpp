// Plain C++; tests compare AMX with it.
#include <algorithm>
#include <cmath>
#include <limits>

#include "simd/digits/table.h"

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

}  // namespace

const DigitTable kDigitScalar = {SimdLevel::scalar, 4, to_digits, begin, end, multiply};

}  // namespace dpad
