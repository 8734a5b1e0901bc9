// Helpers of a tower's AVX-512 loops, for files that are compiled for AVX-512 only.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 takes the placeholders in its own header for values that are used (its bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstdint>

namespace dpad {

inline __mmask16 first_lanes(int64_t count) {
  return count >= 16 ? static_cast<__mmask16>(0xFFFF) : static_cast<__mmask16>((1u << std::max<int64_t>(count, 0)) - 1);
}

// e^x to about 1 ulp, for x clamped to -80..80. So neither the result nor its reciprocal is a denormal number, which
// would cost as much as a hundred others.
inline __m512 exponential(__m512 x) {
  x = _mm512_max_ps(x, _mm512_set1_ps(-80.0f));
  x = _mm512_min_ps(x, _mm512_set1_ps(80.0f));
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.9875691500e-4f);  // Cephes' expf
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
  p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
  return _mm512_scalef_ps(p, n);
}

// 1 / x to about 1 ulp: an estimate of 14 bits and a step of Newton's take a third of a division's time.
inline __m512 reciprocal(__m512 x) {
  const __m512 estimate = _mm512_rcp14_ps(x);
  return _mm512_mul_ps(estimate, _mm512_fnmadd_ps(x, estimate, _mm512_set1_ps(2.0f)));
}

// x * sigmoid(1.702 x), with the sigmoid to about 2 ulp. e^(-1.702 x) is 2^t; a minimax polynomial gives 2 to the
// fraction of t with a relative error of at most 8e-8.
inline __m512 quick_gelu_of(__m512 x) {
  // For t above 126 the reciprocal would be a denormal number, or the power an infinity.
  const __m512 t = _mm512_min_ps(_mm512_mul_ps(x, _mm512_set1_ps(-2.45546696f)), _mm512_set1_ps(126.0f));
  const __m512 f = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  __m512 p = _mm512_set1_ps(1.8671301659e-3f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.0170297772e-3f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5799912661e-2f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4016444385e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9315129519e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
  const __m512 power = _mm512_scalef_ps(p, t);
  return _mm512_mul_ps(x, reciprocal(_mm512_add_ps(_mm512_set1_ps(1.0f), power)));
}

// csrc/simd/tower/attention_avx512.cpp; see TowerTable.
void transpose_keys_avx512(const float* const* keys, int64_t length, int64_t dim, int64_t padded, float* keys_t);
void attend_avx512(const float* q, int64_t q_stride, const float* keys_t, int64_t padded, const float* const* values,
                   int64_t length, int64_t dim, int64_t from, int64_t to, bool causal, float scale, float* scores,
                   float* out, int64_t out_stride);

}  // namespace dpad
