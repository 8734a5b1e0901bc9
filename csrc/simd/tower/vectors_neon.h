// Helpers of a tower's NEON loops, for files that are compiled for 64-bit Arm only.
#pragma once

#include <arm_neon.h>

#include <algorithm>
#include <cstdint>

namespace dpad {

// Everything is in an anonymous namespace, because files with other instruction sets include it too.
namespace {

// The first `left` of four floats, and zeros.
inline float32x4_t load_first(const float* x, int64_t left) {
  if (left >= 4) return vld1q_f32(x);
  float lanes[4] = {};
  for (int64_t i = 0; i < left; ++i) lanes[i] = x[i];
  return vld1q_f32(lanes);
}

inline void store_first(float* out, float32x4_t value, int64_t left) {
  if (left >= 4) return vst1q_f32(out, value);
  float lanes[4];
  vst1q_f32(lanes, value);
  for (int64_t i = 0; i < left; ++i) out[i] = lanes[i];
}

// All ones in the first `left` lanes.
inline uint32x4_t first_lanes(int64_t left) {
  constexpr int32_t kLanes[4] = {0, 1, 2, 3};
  return vcltq_s32(vld1q_s32(kLanes), vdupq_n_s32(static_cast<int32_t>(std::min<int64_t>(left, 4))));
}

inline float32x4_t keep(float32x4_t value, uint32x4_t lanes) {
  return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(value), lanes));
}

// x * 2^n, for a result that is a normal number.
inline float32x4_t times_power_of_two(float32x4_t x, int32x4_t n) {
  return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(x), vshlq_n_s32(n, 23)));
}

// c + p x, a step of Horner's.
inline float32x4_t horner(float32x4_t p, float32x4_t x, float c) { return vfmaq_f32(vdupq_n_f32(c), p, x); }

// e^x to about 1 ulp, for x clamped to -80..80, so that the result is a normal number. NaN stays NaN.
inline float32x4_t exponential(float32x4_t x) {
  x = vminq_f32(vmaxq_f32(x, vdupq_n_f32(-80.0f)), vdupq_n_f32(80.0f));
  const float32x4_t n = vrndnq_f32(vmulq_n_f32(x, 1.44269504088896341f));
  float32x4_t r = vfmsq_f32(x, n, vdupq_n_f32(0.693359375f));
  r = vfmsq_f32(r, n, vdupq_n_f32(-2.12194440e-4f));
  float32x4_t p = vdupq_n_f32(1.9875691500e-4f);  // Cephes' expf
  p = horner(p, r, 1.3981999507e-3f);
  p = horner(p, r, 8.3334519073e-3f);
  p = horner(p, r, 4.1665795894e-2f);
  p = horner(p, r, 1.6666665459e-1f);
  p = horner(p, r, 5.0000001201e-1f);
  p = vfmaq_f32(vaddq_f32(r, vdupq_n_f32(1.0f)), p, vmulq_f32(r, r));
  return times_power_of_two(p, vcvtq_s32_f32(n));
}

// 1 / x to about 1 ulp: an estimate of 8 bits and two steps of Newton's, as a division would hold up the other sums.
inline float32x4_t reciprocal(float32x4_t x) {
  float32x4_t estimate = vrecpeq_f32(x);
  estimate = vmulq_f32(estimate, vrecpsq_f32(x, estimate));
  return vmulq_f32(estimate, vrecpsq_f32(x, estimate));
}

// x * sigmoid(1.702 x), with the sigmoid to about 2 ulp. e^(-1.702 x) is 2^t; a minimax polynomial gives 2 to the
// fraction of t with a relative error of at most 8e-8.
inline float32x4_t quick_gelu_of(float32x4_t x) {
  // For t outside -126..126 the power or its reciprocal would not be a normal number.
  const float32x4_t t = vminq_f32(vmaxq_f32(vmulq_n_f32(x, -2.45546696f), vdupq_n_f32(-126.0f)), vdupq_n_f32(126.0f));
  const float32x4_t whole = vrndmq_f32(t), f = vsubq_f32(t, whole);
  float32x4_t p = vdupq_n_f32(1.8671301659e-3f);
  p = horner(p, f, 9.0170297772e-3f);
  p = horner(p, f, 5.5799912661e-2f);
  p = horner(p, f, 2.4016444385e-1f);
  p = horner(p, f, 6.9315129519e-1f);
  p = horner(p, f, 1.0f);
  const float32x4_t power = times_power_of_two(p, vcvtq_s32_f32(whole));
  return vmulq_f32(x, reciprocal(vaddq_f32(power, vdupq_n_f32(1.0f))));
}

// Transposes 4 x 4 floats.
inline void transpose4(float32x4_t (&r)[4]) {
  const float32x4_t a = vtrn1q_f32(r[0], r[1]), b = vtrn2q_f32(r[0], r[1]);
  const float32x4_t c = vtrn1q_f32(r[2], r[3]), d = vtrn2q_f32(r[2], r[3]);
  r[0] = vcombine_f32(vget_low_f32(a), vget_low_f32(c));
  r[1] = vcombine_f32(vget_low_f32(b), vget_low_f32(d));
  r[2] = vcombine_f32(vget_high_f32(a), vget_high_f32(c));
  r[3] = vcombine_f32(vget_high_f32(b), vget_high_f32(d));
}

// Four rows times sixteen columns: with the operands of a step they fit in the 32 registers.
struct Sums16 {
  float32x4_t v[4][4];
};

inline Sums16 no_sums() {
  Sums16 s;
  for (auto& row : s.v)
    for (float32x4_t& v : row) v = vdupq_n_f32(0.0f);
  return s;
}

// Adds one element of each row, x[0..4), times a row of columns, y[0..16).
inline void multiply_step(Sums16& s, const float (&x)[4], const float32x4_t (&y)[4]) {
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    s.v[r][0] = vfmaq_n_f32(s.v[r][0], y[0], x[r]);
    s.v[r][1] = vfmaq_n_f32(s.v[r][1], y[1], x[r]);
    s.v[r][2] = vfmaq_n_f32(s.v[r][2], y[2], x[r]);
    s.v[r][3] = vfmaq_n_f32(s.v[r][3], y[3], x[r]);
  }
}

}  // namespace

// csrc/simd/tower/attention_neon.cpp; see TowerTable.
void transpose_keys_neon(const float* const* keys, int64_t length, int64_t dim, int64_t padded, float* keys_t);
void attend_neon(const float* q, int64_t q_stride, const float* keys_t, int64_t padded, const float* const* values,
                 int64_t length, int64_t dim, int64_t from, int64_t to, bool causal, float scale, float* scores,
                 float* out, int64_t out_stride);

}  // namespace dpad
