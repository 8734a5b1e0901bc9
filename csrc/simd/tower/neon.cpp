// NEON, which every 64-bit Arm has.
#include <algorithm>
#include <cmath>
#include <limits>

#include "simd/tower/table.h"
#include "simd/tower/vectors_neon.h"

namespace dpad {
namespace {

constexpr int64_t kTileRows = 4, kTileColumns = 16;
static_assert(kGemmRows % kTileRows == 0, "sums has whole tiles");
static_assert(kPanel % kTileColumns == 0, "a panel is whole tiles wide");

// Sixteen floats at a time, with zeros past the end. Each vector has its own sum or maximum, so that the four additions
// do not wait for each other.
struct Four {
  float32x4_t v[4];
};

inline Four four_zeros() {
  const float32x4_t zero = vdupq_n_f32(0.0f);
  return {{zero, zero, zero, zero}};
}

inline Four load_four(const float* x, int64_t left) {
  if (left >= 16) return {{vld1q_f32(x), vld1q_f32(x + 4), vld1q_f32(x + 8), vld1q_f32(x + 12)}};
  Four four;
  for (int i = 0; i < 4; ++i) four.v[i] = load_first(x + 4 * i, left - 4 * i);
  return four;
}

inline float total(const Four& f) {
  return vaddvq_f32(vaddq_f32(vaddq_f32(f.v[0], f.v[1]), vaddq_f32(f.v[2], f.v[3])));
}

// The largest factor that a block may be multiplied by; 0 for a block of zeros, NaN where an element is not finite.
float block_scale(const float* x, int64_t count) {
  Four squares = four_zeros(), largest = four_zeros();
  for (int64_t i = 0; i < count; i += 16) {
    const Four value = load_four(x + i, count - i);
    for (int j = 0; j < 4; ++j) {
      squares.v[j] = vfmaq_f32(squares.v[j], value.v[j], value.v[j]);
      largest.v[j] = vmaxq_f32(largest.v[j], vabsq_f32(value.v[j]));
    }
  }
  const float sum = total(squares);
  if (!std::isfinite(sum)) return std::numeric_limits<float>::quiet_NaN();
  const float norm = std::sqrt(sum);
  if (norm < kNothing16) return 0.0f;
  const float32x4_t top = vmaxq_f32(vmaxq_f32(largest.v[0], largest.v[1]), vmaxq_f32(largest.v[2], largest.v[3]));
  return std::min(kBlockNorm / norm, kLargest16 / vmaxvq_f32(top));
}

// One block of at most kBlock16 elements, filled up with zeros. Returns the value of an integer 1.
float quantise_block(const float* x, int64_t count, int16_t* out) {
  const float by = block_scale(x, count);
  if (!(by > 0.0f)) {
    std::fill_n(out, kBlock16, static_cast<int16_t>(0));
    return by;
  }
  for (int64_t i = 0; i < kBlock16; i += 16) {
    const Four value = load_four(x + i, count - i);
    int16x4_t q[4];
    for (int j = 0; j < 4; ++j) q[j] = vqmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(value.v[j], by)));
    vst1q_s16(out + i, vcombine_s16(q[0], q[1]));
    vst1q_s16(out + i + 8, vcombine_s16(q[2], q[3]));
  }
  return 1.0f / by;
}

void quantise(const float* x, int64_t k, int16_t* out, int64_t stride, float* scale, int64_t scale_stride) {
  for (int64_t i = 0; i < k; i += kBlock16, out += stride, scale += scale_stride)
    *scale = quantise_block(x + i, std::min(kBlock16, k - i), out);
}

void to_blocks(const float* x, int64_t k, float* out, int64_t stride) {
  const int64_t blocks = (k + kBlock32 - 1) / kBlock32;
  for (int64_t i = 0; i < blocks * kBlock32; i += 4)
    vst1q_f32(out + i / kBlock32 * stride + i % kBlock32, load_first(x + i, k - i));
}

void layer_norm(const float* x, const float* weight, const float* bias, int64_t k, float eps, float* y) {
  Four sums = four_zeros(), squares = four_zeros();
  for (int64_t i = 0; i < k; i += 16) {
    const Four value = load_four(x + i, k - i);
    for (int j = 0; j < 4; ++j) sums.v[j] = vaddq_f32(sums.v[j], value.v[j]);
  }
  const float32x4_t mean = vdupq_n_f32(total(sums) / static_cast<float>(k));
  for (int64_t i = 0; i < k; i += 16) {
    const Four value = load_four(x + i, k - i);
    for (int j = 0; j < 4; ++j) {
      const float32x4_t centred = keep(vsubq_f32(value.v[j], mean), first_lanes(k - i - 4 * j));
      squares.v[j] = vfmaq_f32(squares.v[j], centred, centred);
    }
  }
  const float variance = total(squares) / static_cast<float>(k), inverse = 1.0f / std::sqrt(variance + eps);
  for (int64_t i = 0; i < k; i += 4) {
    const int64_t left = k - i;
    const float32x4_t value = vmulq_n_f32(vsubq_f32(load_first(x + i, left), mean), inverse);
    store_first(y + i, vfmaq_f32(load_first(bias + i, left), value, load_first(weight + i, left)), left);
  }
}

// The products of four rows with sixteen columns of a block, as floats.
inline Sums16 tile(const float* const (&row)[kTileRows], const float* panel) {
  Sums16 s = no_sums();
  for (int64_t i = 0; i < kBlock32; ++i, panel += kPanel) {
    const float32x4_t y[4] = {vld1q_f32(panel), vld1q_f32(panel + 4), vld1q_f32(panel + 8), vld1q_f32(panel + 12)};
    multiply_step(s, {row[0][i], row[1][i], row[2][i], row[3][i]}, y);
  }
  return s;
}

// Exact products of four rows with sixteen columns.
struct Exact16 {
  int32x4_t v[4][4];
};

// Adds two elements of each row, lanes kLane and kLane + 1, times two rows of columns.
template <int kLane>
inline void multiply_pair(Exact16& s, const int16x8_t (&x)[4], const int16_t* panel) {
  const int16x8x2_t left = vld2q_s16(panel), right = vld2q_s16(panel + 16);
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    s.v[r][0] = vmlal_laneq_s16(s.v[r][0], vget_low_s16(left.val[0]), x[r], kLane);
    s.v[r][1] = vmlal_high_laneq_s16(s.v[r][1], left.val[0], x[r], kLane);
    s.v[r][2] = vmlal_laneq_s16(s.v[r][2], vget_low_s16(right.val[0]), x[r], kLane);
    s.v[r][3] = vmlal_high_laneq_s16(s.v[r][3], right.val[0], x[r], kLane);
    s.v[r][0] = vmlal_laneq_s16(s.v[r][0], vget_low_s16(left.val[1]), x[r], kLane + 1);
    s.v[r][1] = vmlal_high_laneq_s16(s.v[r][1], left.val[1], x[r], kLane + 1);
    s.v[r][2] = vmlal_laneq_s16(s.v[r][2], vget_low_s16(right.val[1]), x[r], kLane + 1);
    s.v[r][3] = vmlal_high_laneq_s16(s.v[r][3], right.val[1], x[r], kLane + 1);
  }
}

inline Sums16 tile(const int16_t* const (&row)[kTileRows], const int16_t* panel) {
  Exact16 exact;
  for (auto& of_row : exact.v)
    for (int32x4_t& v : of_row) v = vdupq_n_s32(0);
  for (int64_t i = 0; i < kBlock16; i += 8, panel += 8 * kPanel) {
    const int16x8_t x[4] = {vld1q_s16(row[0] + i), vld1q_s16(row[1] + i), vld1q_s16(row[2] + i), vld1q_s16(row[3] + i)};
    multiply_pair<0>(exact, x, panel);
    multiply_pair<2>(exact, x, panel + 2 * kPanel);
    multiply_pair<4>(exact, x, panel + 4 * kPanel);
    multiply_pair<6>(exact, x, panel + 6 * kPanel);
  }
  Sums16 s;
  for (int r = 0; r < 4; ++r)
    for (int c = 0; c < 4; ++c) s.v[r][c] = vcvtq_f32_s32(exact.v[r][c]);
  return s;
}

// `scale` is null for floats. A step of both kinds reads the same bytes of a panel: 4 kPanel.
template <typename Element>
void block(const Element* a, const float* scale, const Element* panel, int64_t rows, bool first, float* sums) {
  constexpr int64_t kPerStep = static_cast<int64_t>(sizeof(float) / sizeof(Element)), kDepth = 64 * kPerStep;
  for (int64_t column = 0; column < kPanel; column += kTileColumns)
    for (int64_t r = 0; r < rows; r += kTileRows) {
      const Element* row[kTileRows];  // the last row again past the end: `sums` has room for it
      for (int64_t i = 0; i < kTileRows; ++i) row[i] = a + std::min(r + i, rows - 1) * kDepth;
      const Sums16 s = tile(row, panel + column * kPerStep);
      for (int64_t i = 0; i < kTileRows; ++i)
        for (int64_t c = 0; c < 4; ++c) {
          float* out = sums + (r + i) * kPanel + column + 4 * c;
          const float32x4_t before = first ? vdupq_n_f32(0.0f) : vld1q_f32(out);
          vst1q_f32(out, scale == nullptr ? vaddq_f32(before, s.v[i][c])
                                          : vfmaq_n_f32(before, s.v[i][c], scale[std::min(r + i, rows - 1)]));
        }
    }
}

static_assert(kBlock16 * sizeof(int16_t) == 256 && kBlock32 * sizeof(float) == 256, "64 steps of four bytes");

void block16(const int16_t* a, const float* scale, const int16_t* panel, int64_t rows, bool first, float* sums,
             const float*, int64_t) {
  block(a, scale, panel, rows, first, sums);
}

void block32(const float* a, const float* panel, int64_t rows, bool first, float* sums, const float*, int64_t) {
  block(a, static_cast<const float*>(nullptr), panel, rows, first, sums);
}

inline float32x4_t scaled_and_shifted(float32x4_t sums, const float* scale, const float* bias, int64_t left) {
  if (scale != nullptr) sums = vmulq_f32(sums, load_first(scale, left));
  return bias == nullptr ? sums : vaddq_f32(sums, load_first(bias, left));
}

inline const float* at_column(const float* values, int64_t column) {
  return values == nullptr ? nullptr : values + column;
}

void finish(const float* sums, const float* scale, const float* bias, int64_t count, bool quick_gelu, bool add,
            float* out) {
  for (int64_t c = 0; c < count; c += 4) {
    const int64_t left = count - c;
    float32x4_t value = scaled_and_shifted(load_first(sums + c, left), at_column(scale, c), at_column(bias, c), left);
    if (quick_gelu) value = quick_gelu_of(value);
    if (add) value = vaddq_f32(value, load_first(out + c, left));
    store_first(out + c, value, left);
  }
}

float finish_block16(const float* left, const float* right, const float* scale, const float* bias, int64_t count,
                     int16_t* out) {
  static_assert(2 * kPanel == kBlock16, "a block is two panels wide");
  float block[kBlock16];
  finish(left, scale, bias, std::min(kPanel, count), true, false, block);
  if (count > kPanel)
    finish(right, scale + kPanel, at_column(bias, kPanel), count - kPanel, true, false, block + kPanel);
  return quantise_block(block, count, out);
}

}  // namespace

const TowerTable kTowerNeon = {SimdLevel::neon, quantise, layer_norm,     to_blocks,           block16,
                               block32,         finish,   finish_block16, transpose_keys_neon, attend_neon};

}  // namespace dpad
