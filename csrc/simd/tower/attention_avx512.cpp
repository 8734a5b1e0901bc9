// Attention of short sequences with AVX-512.
#include <limits>

#include "simd/tower/vectors_avx512.h"

namespace dpad {
namespace {

// Four queries share their loads. Named sums and not arrays, which GCC 12 would keep in memory.
struct Sums8 {
  __m512 a0, a1, b0, b1, c0, c1, d0, d1;
};

inline void multiply_two(Sums8& s, float a, float b, float c, float d, __m512 first, __m512 second) {
  const __m512 va = _mm512_set1_ps(a), vb = _mm512_set1_ps(b), vc = _mm512_set1_ps(c), vd = _mm512_set1_ps(d);
  s.a0 = _mm512_fmadd_ps(va, first, s.a0);
  s.a1 = _mm512_fmadd_ps(va, second, s.a1);
  s.b0 = _mm512_fmadd_ps(vb, first, s.b0);
  s.b1 = _mm512_fmadd_ps(vb, second, s.b1);
  s.c0 = _mm512_fmadd_ps(vc, first, s.c0);
  s.c1 = _mm512_fmadd_ps(vc, second, s.c1);
  s.d0 = _mm512_fmadd_ps(vd, first, s.d0);
  s.d1 = _mm512_fmadd_ps(vd, second, s.d1);
}

inline void multiply_one(Sums8& s, float a, float b, float c, float d, __m512 first) {
  s.a0 = _mm512_fmadd_ps(_mm512_set1_ps(a), first, s.a0);
  s.b0 = _mm512_fmadd_ps(_mm512_set1_ps(b), first, s.b0);
  s.c0 = _mm512_fmadd_ps(_mm512_set1_ps(c), first, s.c0);
  s.d0 = _mm512_fmadd_ps(_mm512_set1_ps(d), first, s.d0);
}

// Transposes 16 x 16 floats: first single floats change places, then pairs, then quarters of the registers.
inline void transpose16(__m512 (&r)[16]) {
  __m512 t[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    const __m512d a = _mm512_castps_pd(t[i]), b = _mm512_castps_pd(t[i + 1]);
    const __m512d c = _mm512_castps_pd(t[i + 2]), d = _mm512_castps_pd(t[i + 3]);
    r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
    r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
    r[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
    r[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_f32x4(r[i], r[4 + i], 0x88);
    t[4 + i] = _mm512_shuffle_f32x4(r[i], r[4 + i], 0xDD);
    t[8 + i] = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0x88);
    t[12 + i] = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0xDD);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_f32x4(t[i], t[8 + i], 0x88);
    r[8 + i] = _mm512_shuffle_f32x4(t[i], t[8 + i], 0xDD);
    r[4 + i] = _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0x88);
    r[12 + i] = _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0xDD);
  }
}

// Fills scores[i * padded + j] of four queries i for the keys j < seen, 32 keys at a time, or 16 at the end where no
// more are left; padded is a multiple of 32.
void score_keys(const float* const* q, const float* keys_t, int64_t padded, int64_t seen, int64_t dim, float scale,
                float* scores) {
  const __m512 by = _mm512_set1_ps(scale);
  for (int64_t j = 0; j < seen; j += 32) {
    Sums8 s{};
    const float* keys = keys_t + j;
    if (seen - j <= 16)
      for (int64_t d = 0; d < dim; ++d, keys += padded)
        multiply_one(s, q[0][d], q[1][d], q[2][d], q[3][d], _mm512_loadu_ps(keys));
    else
      for (int64_t d = 0; d < dim; ++d, keys += padded)
        multiply_two(s, q[0][d], q[1][d], q[2][d], q[3][d], _mm512_loadu_ps(keys), _mm512_loadu_ps(keys + 16));
    _mm512_storeu_ps(scores + j, _mm512_mul_ps(s.a0, by));
    _mm512_storeu_ps(scores + j + 16, _mm512_mul_ps(s.a1, by));
    _mm512_storeu_ps(scores + padded + j, _mm512_mul_ps(s.b0, by));
    _mm512_storeu_ps(scores + padded + j + 16, _mm512_mul_ps(s.b1, by));
    _mm512_storeu_ps(scores + 2 * padded + j, _mm512_mul_ps(s.c0, by));
    _mm512_storeu_ps(scores + 2 * padded + j + 16, _mm512_mul_ps(s.c1, by));
    _mm512_storeu_ps(scores + 3 * padded + j, _mm512_mul_ps(s.d0, by));
    _mm512_storeu_ps(scores + 3 * padded + j + 16, _mm512_mul_ps(s.d1, by));
  }
}

// Turns scores into e^(score - largest score), and returns the sum.
float exponentiate(float* scores, int64_t seen) {
  const float lowest = -std::numeric_limits<float>::infinity();
  __m512 top = _mm512_set1_ps(lowest);
  for (int64_t j = 0; j < seen; j += 16)
    top = _mm512_max_ps(top, _mm512_mask_loadu_ps(_mm512_set1_ps(lowest), first_lanes(seen - j), scores + j));
  top = _mm512_set1_ps(_mm512_reduce_max_ps(top));
  __m512 total = _mm512_setzero_ps();
  for (int64_t j = 0; j < seen; j += 16) {
    const __mmask16 lanes = first_lanes(seen - j);
    const __m512 power = _mm512_maskz_mov_ps(lanes, exponential(_mm512_sub_ps(_mm512_loadu_ps(scores + j), top)));
    _mm512_storeu_ps(scores + j, power);
    total = _mm512_add_ps(total, power);
  }
  return _mm512_reduce_add_ps(total);
}

}  // namespace

void transpose_keys_avx512(const float* const* keys, int64_t length, int64_t dim, int64_t padded, float* keys_t) {
  for (int64_t j = 0; j < length; j += 16)
    for (int64_t d = 0; d < dim; d += 16) {
      const __mmask16 lanes = first_lanes(dim - d);
      __m512 r[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) r[i] = _mm512_maskz_loadu_ps(lanes, keys[std::min(j + i, length - 1)] + d);
      transpose16(r);
      float* out = keys_t + d * padded + j;
      const int64_t count = std::min<int64_t>(16, dim - d);
      if (count == 16) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) _mm512_storeu_ps(out + i * padded, r[i]);
      } else {
        for (int64_t i = 0; i < count; ++i) _mm512_storeu_ps(out + i * padded, r[i]);
      }
    }
}

void attend_avx512(const float* q, int64_t q_stride, const float* keys_t, int64_t padded, const float* const* values,
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
    for (int64_t d = 0; d < dim; d += 32) {
      const __mmask16 low = first_lanes(dim - d), high = first_lanes(dim - d - 16);
      Sums8 s{};
      for (int64_t j = 0; j < key_count; ++j)
        multiply_two(s, scores[j], scores[padded + j], scores[2 * padded + j], scores[3 * padded + j],
                     _mm512_maskz_loadu_ps(low, values[j] + d), _mm512_maskz_loadu_ps(high, values[j] + d + 16));
      const __m512 sums[4][2] = {{s.a0, s.a1}, {s.b0, s.b1}, {s.c0, s.c1}, {s.d0, s.d1}};
      for (int64_t i = 0; i < count; ++i) {
        const __m512 by = _mm512_set1_ps(share[i]);
        _mm512_mask_storeu_ps(out + i * out_stride + d, low, _mm512_mul_ps(sums[i][0], by));
        _mm512_mask_storeu_ps(out + i * out_stride + d + 16, high, _mm512_mul_ps(sums[i][1], by));
      }
    }
  }
}

}  // namespace dpad
