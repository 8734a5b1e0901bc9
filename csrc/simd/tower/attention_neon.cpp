// Attention of short sequences with NEON.
#include <limits>

#include "simd/tower/table.h"
#include "simd/tower/vectors_neon.h"

namespace dpad {
namespace {

static_assert(kKeyStep % 16 == 0, "sixteen keys at a time stay in a row of keys_t");

inline void load_four(const float* x, float32x4_t (&y)[4]) {
  for (int i = 0; i < 4; ++i) y[i] = vld1q_f32(x + 4 * i);
}

// Fills scores[i * padded + j] of four queries i for the keys j < seen, sixteen keys at a time.
void score_keys(const float* const* q, const float* keys_t, int64_t padded, int64_t seen, int64_t dim, float scale,
                float* scores) {
  for (int64_t j = 0; j < seen; j += 16) {
    Sums16 s = no_sums();
    const float* keys = keys_t + j;
    for (int64_t d = 0; d < dim; ++d, keys += padded) {
      float32x4_t y[4];
      load_four(keys, y);
      multiply_step(s, {q[0][d], q[1][d], q[2][d], q[3][d]}, y);
    }
    for (int r = 0; r < 4; ++r)
      for (int c = 0; c < 4; ++c) vst1q_f32(scores + r * padded + j + 4 * c, vmulq_n_f32(s.v[r][c], scale));
  }
}

// Turns scores into e^(score - largest score), and returns the sum.
float exponentiate(float* scores, int64_t seen) {
  float32x4_t top = vdupq_n_f32(-std::numeric_limits<float>::infinity());
  for (int64_t j = 0; j < seen; j += 4)
    top = vmaxq_f32(top, vbslq_f32(first_lanes(seen - j), vld1q_f32(scores + j), top));
  const float32x4_t largest = vdupq_n_f32(vmaxvq_f32(top));
  float32x4_t total = vdupq_n_f32(0.0f);
  for (int64_t j = 0; j < seen; j += 4) {
    const float32x4_t power = keep(exponential(vsubq_f32(vld1q_f32(scores + j), largest)), first_lanes(seen - j));
    vst1q_f32(scores + j, power);
    total = vaddq_f32(total, power);
  }
  return vaddvq_f32(total);
}

// out[i] = share[i] * (the values times the weights of query i) for `count` of four queries.
void mix_values(const float* weights, int64_t padded, const float* const* values, int64_t key_count, int64_t dim,
                const float (&share)[4], int64_t count, float* out, int64_t out_stride) {
  for (int64_t d = 0; d < dim; d += 16) {
    const int64_t left = dim - d;
    Sums16 s = no_sums();
    for (int64_t j = 0; j < key_count; ++j) {
      float32x4_t y[4];
      if (left >= 16)
        load_four(values[j] + d, y);
      else
        for (int i = 0; i < 4; ++i) y[i] = load_first(values[j] + d + 4 * i, left - 4 * i);
      multiply_step(s, {weights[j], weights[padded + j], weights[2 * padded + j], weights[3 * padded + j]}, y);
    }
    for (int r = 0; r < 4; ++r)
      for (int c = 0; r < count && c < 4; ++c)
        store_first(out + r * out_stride + d + 4 * c, vmulq_n_f32(s.v[r][c], share[r]), left - 4 * c);
  }
}

}  // namespace

void transpose_keys_neon(const float* const* keys, int64_t length, int64_t dim, int64_t padded, float* keys_t) {
  for (int64_t j = 0; j < length; j += 4)
    for (int64_t d = 0; d < dim; d += 4) {
      float32x4_t r[4];
      for (int i = 0; i < 4; ++i) r[i] = load_first(keys[std::min(j + i, length - 1)] + d, dim - d);
      transpose4(r);
      for (int i = 0; i < std::min<int64_t>(4, dim - d); ++i) vst1q_f32(keys_t + (d + i) * padded + j, r[i]);
    }
}

void attend_neon(const float* q, int64_t q_stride, const float* keys_t, int64_t padded, const float* const* values,
                 int64_t length, int64_t dim, int64_t from, int64_t to, bool causal, float scale, float* scores,
                 float* out, int64_t out_stride) {
  for (int64_t t = from; t < to; t += 4, q += 4 * q_stride, out += 4 * out_stride) {
    const int64_t count = std::min<int64_t>(4, to - t), key_count = causal ? t + count : length;
    const float* queries[4];
    for (int64_t i = 0; i < 4; ++i) queries[i] = q + std::min(i, count - 1) * q_stride;
    score_keys(queries, keys_t, padded, key_count, dim, scale, scores);
    float share[4];
    for (int64_t i = 0; i < 4; ++i) {
      const int64_t seen = causal ? std::min(t + i + 1, key_count) : length;
      share[i] = 1.0f / exponentiate(scores + i * padded, seen);
      for (int64_t j = seen; j < key_count; ++j) scores[i * padded + j] = 0.0f;
    }
    mix_values(scores, padded, values, key_count, dim, share, count, out, out_stride);
  }
}

}  // namespace dpad
