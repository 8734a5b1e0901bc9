// Arm's products of 8-bit matrices (FEAT_I8MM): one SMMLA multiplies two rows with two columns, eight deep.
#include <cmath>
#include <limits>

#include "simd/digits/table.h"
#include "simd/tower/vectors_neon.h"

namespace dpad {
namespace {

constexpr int64_t kDepth = 8;          // of an instruction
constexpr int64_t kPair = 2 * kDepth;  // bytes of two columns
constexpr int64_t kTileRows = 4;       // that share a column's loads
static_assert(kDigitRows % kTileRows == 0, "a block is whole tiles");

struct Range {
  float largest, norm;
};

Range range_of(const float* x, int64_t count) {
  float32x4_t squares[4], largest[4];
  for (int j = 0; j < 4; ++j) squares[j] = largest[j] = vdupq_n_f32(0.0f);
  for (int64_t i = 0; i < count; i += 16)
    for (int j = 0; j < 4; ++j) {
      const float32x4_t value = load_first(x + i + 4 * j, count - i - 4 * j);
      squares[j] = vfmaq_f32(squares[j], value, value);
      largest[j] = vmaxq_f32(largest[j], vabsq_f32(value));
    }
  const float32x4_t sum = vaddq_f32(vaddq_f32(squares[0], squares[1]), vaddq_f32(squares[2], squares[3]));
  const float32x4_t top = vmaxq_f32(vmaxq_f32(largest[0], largest[1]), vmaxq_f32(largest[2], largest[3]));
  return {vmaxvq_f32(top), std::sqrt(vaddvq_f32(sum))};
}

// The lowest eight bits of sixteen integers.
inline int8x16_t low_bytes(const int32x4_t (&q)[4]) {
  const int16x8_t left = vcombine_s16(vmovn_s32(q[0]), vmovn_s32(q[1]));
  const int16x8_t right = vcombine_s16(vmovn_s32(q[2]), vmovn_s32(q[3]));
  return vcombine_s8(vmovn_s16(left), vmovn_s16(right));
}

float to_digits(const float* x, int64_t count, int digits, int8_t* out, int64_t digit_stride, int64_t step_stride) {
  const Range range = range_of(x, count);
  const bool finite = std::isfinite(range.norm), sound = finite && range.norm > kNothingInDigits;
  const float by = sound ? std::min(kLargestDigits[digits] / range.largest,
                                    digits == 2 ? kDigitNorm / range.norm : std::numeric_limits<float>::infinity())
                         : 0.0f;
  for (int64_t i = 0; i < count; i += kDigitStep, out += step_stride)
    for (int64_t j = 0; j < kDigitStep; j += 16) {
      int32x4_t q[4];
      for (int k = 0; k < 4; ++k) {
        const int64_t at = i + j + 4 * k;
        q[k] = sound ? vcvtnq_s32_f32(vmulq_n_f32(load_first(x + at, count - at), by)) : vdupq_n_s32(0);
      }
      for (int d = digits - 1; d >= 0; --d) {
        vst1q_s8(out + d * digit_stride + j, low_bytes(q));
        for (int32x4_t& of_four : q) {
          const int32x4_t digit = vshrq_n_s32(vshlq_n_s32(of_four, 24), 24);
          of_four = vshrq_n_s32(vsubq_s32(of_four, digit), 8);
        }
      }
    }
  if (!finite) return std::numeric_limits<float>::quiet_NaN();
  return sound ? 1.0f / by : 0.0f;
}

void begin() {}
void end() {}

inline int8x16_t two_rows(const int8_t* rows) { return vcombine_s8(vld1_s8(rows), vld1_s8(rows + kDigitStep)); }

// Sums of four rows times kPairs pairs of columns, one set for each power of 256, the highest first. Two digits have
// two powers and four pairs at once, three digits four powers and two pairs: sixteen registers.
template <int kDigits>
struct Sums {
  static constexpr int kPowers = kDigits == 2 ? 2 : 4, kPairs = kDigits == 2 ? 4 : 2;
  int32x4_t v[kPowers][2][kPairs];
};

// One instruction's depth.
template <int kDigits>
inline void multiply_step(Sums<kDigits>& s, const int8_t* rows, const int8_t* columns) {
  int8x16_t a[kDigits][2];
#pragma GCC unroll 3
  for (int d = 0; d < kDigits; ++d) {
    a[d][0] = two_rows(rows + d * kTileBytes);
    a[d][1] = two_rows(rows + d * kTileBytes + 2 * kDigitStep);
  }
#pragma GCC unroll 4
  for (int pair = 0; pair < Sums<kDigits>::kPairs; ++pair)
#pragma GCC unroll 3
    for (int low = 0; low < kDigits; ++low) {
      const int8x16_t b = vld1q_s8(columns + low * kTileBytes + pair * kPair);
#pragma GCC unroll 3
      for (int d = 0; d < kDigits; ++d) {
        if (d + low >= Sums<kDigits>::kPowers) continue;
        s.v[d + low][0][pair] = vmmlaq_s32(s.v[d + low][0][pair], a[d][0], b);
        s.v[d + low][1][pair] = vmmlaq_s32(s.v[d + low][1][pair], a[d][1], b);
      }
    }
}

template <int kDigits>
inline Sums<kDigits> multiply_tile(const int8_t* rows, const int8_t* panel, int64_t panel_step, int64_t steps) {
  Sums<kDigits> s;
  for (auto& power : s.v)
    for (auto& row : power)
      for (int32x4_t& v : row) v = vdupq_n_s32(0);
  for (int64_t step = 0; step < steps; ++step, rows += kDigits * kTileBytes, panel += panel_step)
    for (int64_t k = 0; k < kDigitStep; k += kDepth) multiply_step<kDigits>(s, rows + k, panel + k * kDigitColumns);
  return s;
}

// The value of sums by powers of 256, in units of 256 (two digits) or of 65536 (three).
template <int kDigits>
inline float32x4_t value_of(const int32x4_t (&sums)[Sums<kDigits>::kPowers]) {
  if constexpr (kDigits == 2) {
    return vcvtq_f32_s32(vaddq_s32(vshlq_n_s32(sums[0], 8), sums[1]));
  } else {
    const float32x4_t base = vdupq_n_f32(256.0f);
    float32x4_t value = vfmaq_f32(vcvtq_f32_s32(sums[1]), vcvtq_f32_s32(sums[0]), base);
    value = vfmaq_f32(vcvtq_f32_s32(sums[2]), value, base);
    return vfmaq_n_f32(value, vcvtq_f32_s32(sums[3]), 1.0f / 256.0f);
  }
}

// Finishes four columns from `column` on, of one row.
inline void finish(const DigitProduct& p, int64_t row, int64_t column, float32x4_t value) {
  const int64_t left = p.columns - column;
  float* out = p.out + row * p.out_stride + column;
  const float32x4_t scale = load_first(p.column_scale + column, left);
  const float32x4_t bias = p.bias == nullptr ? vdupq_n_f32(0.0f) : load_first(p.bias + column, left);
  value = vfmaq_f32(bias, vmulq_n_f32(value, p.row_scale[row]), scale);
  if (p.add) value = vaddq_f32(value, load_first(out, left));
  if (p.quick_gelu) value = quick_gelu_of(value);
  store_first(out, value, left);
}

// Row `half` of two: the left or the right halves of two pairs of columns.
inline int32x4_t one_row(int32x4_t left, int32x4_t right, int half) {
  const int64x2_t a = vreinterpretq_s64_s32(left), b = vreinterpretq_s64_s32(right);
  return vreinterpretq_s32_s64(half == 0 ? vzip1q_s64(a, b) : vzip2q_s64(a, b));
}

template <int kDigits>
void multiply_panel(const DigitProduct& p) {
  constexpr int kPowers = Sums<kDigits>::kPowers, kPairs = Sums<kDigits>::kPairs;
  for (int64_t row = 0; row < p.rows; row += kTileRows) {
    const int8_t* rows = p.a + row / kDigitRows * p.a_stride + row % kDigitRows * kDigitStep;
    for (int64_t column = 0; column < p.columns; column += 2 * kPairs) {
      const Sums<kDigits> s = multiply_tile<kDigits>(rows, p.panel + column * kDepth, p.panel_step, p.steps);
      for (int64_t r = 0; r < std::min(kTileRows, p.rows - row); ++r)
        for (int pair = 0; pair < kPairs && column + 2 * pair < p.columns; pair += 2) {
          int32x4_t sums[kPowers];
          for (int power = 0; power < kPowers; ++power)
            sums[power] = one_row(s.v[power][r / 2][pair], s.v[power][r / 2][pair + 1], r % 2);
          finish(p, row + r, column + 2 * pair, value_of<kDigits>(sums));
        }
    }
  }
}

void multiply(const DigitProduct& product, int digits) {
  if (digits == 2)
    multiply_panel<2>(product);
  else
    multiply_panel<3>(product);
}

}  // namespace

const DigitTable kDigitI8mm = {SimdLevel::i8mm, kDepth, to_digits, begin, end, multiply};

}  // namespace dpad
