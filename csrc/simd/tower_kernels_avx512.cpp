// AVX-512 with VNNI.
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
#include <cmath>
#include <cstring>
#include <limits>

#include "simd/tower_kernels.h"

namespace dpad {
namespace {

constexpr int kTileRows = 6;

__mmask16 first_lanes(int64_t count) {
  return count >= 16 ? static_cast<__mmask16>(0xFFFF) : static_cast<__mmask16>((1u << std::max<int64_t>(count, 0)) - 1);
}

// e^x to about 1 ulp for x <= 88; 0 far below.
__m512 exponential(__m512 x) {
  x = _mm512_max_ps(x, _mm512_set1_ps(-126.0f * 0.69314718f));
  x = _mm512_min_ps(x, _mm512_set1_ps(88.0f));
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

float quantise(const float* x, int64_t k, int16_t* out, int64_t stride) {
  const int64_t blocks = (k + kBlock16 - 1) / kBlock16;
  __m512 largest = _mm512_setzero_ps();
  float most = 0.0f;
  bool finite = true;
  for (int64_t b = 0; b < blocks; ++b) {
    __m512 squares = _mm512_setzero_ps();
    for (int64_t i = b * kBlock16; i < std::min(k, (b + 1) * kBlock16); i += 16) {
      const __m512 value = _mm512_maskz_loadu_ps(first_lanes(k - i), x + i);
      squares = _mm512_fmadd_ps(value, value, squares);
      largest = _mm512_max_ps(largest, _mm512_abs_ps(value));
    }
    const float sum = _mm512_reduce_add_ps(squares);
    finite = finite && std::isfinite(sum);
    most = std::max(most, sum);
  }
  const float norm = std::sqrt(most);
  const bool empty = !finite || norm < 1e-18f;
  const float scale = empty ? 0.0f : std::min(kBlockNorm / norm, kLargest16 / _mm512_reduce_max_ps(largest));
  const __m512 by = _mm512_set1_ps(scale);
  const __m512i limit = _mm512_set1_epi32(32767);
  for (int64_t i = 0; i < blocks * kBlock16; i += 16) {
    const __mmask16 lanes = empty ? static_cast<__mmask16>(0) : first_lanes(k - i);
    __m512i value = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, x + i), by));
    value = _mm512_max_epi32(_mm512_min_epi32(value, limit), _mm512_sub_epi32(_mm512_setzero_si512(), limit));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i / kBlock16 * stride + i % kBlock16),
                        _mm512_cvtepi32_epi16(value));
  }
  if (!finite) return std::numeric_limits<float>::quiet_NaN();
  return empty ? 0.0f : 1.0f / scale;
}

void arrange(const float* x, int64_t k, float* out, int64_t stride) {
  const int64_t blocks = (k + kBlock32 - 1) / kBlock32;
  for (int64_t i = 0; i < blocks * kBlock32; i += 16)
    _mm512_storeu_ps(out + i / kBlock32 * stride + i % kBlock32, _mm512_maskz_loadu_ps(first_lanes(k - i), x + i));
}

void layer_norm(const float* x, const float* weight, const float* bias, int64_t k, float eps, float* y) {
  __m512 sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < k; i += 16) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(first_lanes(k - i), x + i));
  const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / static_cast<float>(k));
  __m512 squares = _mm512_setzero_ps();
  for (int64_t i = 0; i < k; i += 16) {
    const __mmask16 lanes = first_lanes(k - i);
    const __m512 centred = _mm512_maskz_sub_ps(lanes, _mm512_maskz_loadu_ps(lanes, x + i), mean);
    squares = _mm512_fmadd_ps(centred, centred, squares);
  }
  const __m512 inverse = _mm512_set1_ps(1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / static_cast<float>(k) + eps));
  for (int64_t i = 0; i < k; i += 16) {
    const __mmask16 lanes = first_lanes(k - i);
    const __m512 value = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(lanes, x + i), mean), inverse);
    _mm512_mask_storeu_ps(
        y + i, lanes,
        _mm512_fmadd_ps(value, _mm512_maskz_loadu_ps(lanes, weight + i), _mm512_maskz_loadu_ps(lanes, bias + i)));
  }
}

// The loop is in assembler because of GCC 12: with 24 accumulators, intrinsics or one asm per instruction alike, it
// writes half of them to the stack at every step and the kernel runs at half its speed. zmm0..23 are the accumulators
// (row r, register c: 4 r + c), zmm24..27 a step of the panel, zmm28 the row's element. Both kinds of product read four
// bytes of a row and 256 of the panel a step.
// clang-format off: it indents the strings further every time that it sees them.
#define ROW_STEP(op, at, row, c0, c1, c2, c3)                                                                      \
  "vbroadcastss " #at "*4(%[a" #row "],%[i],4), %%zmm28\n\t" op " %%zmm24, %%zmm28, %%zmm" #c0 "\n\t" op           \
  " %%zmm25, %%zmm28, %%zmm" #c1 "\n\t" op " %%zmm26, %%zmm28, %%zmm" #c2 "\n\t" op " %%zmm27, %%zmm28, %%zmm" #c3 \
  "\n\t"
#define STEP(op, at)                                                                                               \
  "vmovups " #at                                                                                                   \
  "*256(%[panel]), %%zmm24\n\t"                                                                                    \
  "vmovups " #at                                                                                                   \
  "*256+64(%[panel]), %%zmm25\n\t"                                                                                 \
  "vmovups " #at                                                                                                   \
  "*256+128(%[panel]), %%zmm26\n\t"                                                                                \
  "vmovups " #at "*256+192(%[panel]), %%zmm27\n\t" ROW_STEP(op, at, 0, 0, 1, 2, 3) ROW_STEP(op, at, 1, 4, 5, 6, 7) \
      ROW_STEP(op, at, 2, 8, 9, 10, 11) ROW_STEP(op, at, 3, 12, 13, 14, 15) ROW_STEP(op, at, 4, 16, 17, 18, 19)    \
          ROW_STEP(op, at, 5, 20, 21, 22, 23)
#define CLEAR(c0, c1, c2, c3)                    \
  "vpxord %%zmm" #c0 ", %%zmm" #c0 ", %%zmm" #c0 \
  "\n\t"                                         \
  "vpxord %%zmm" #c1 ", %%zmm" #c1 ", %%zmm" #c1 \
  "\n\t"                                         \
  "vpxord %%zmm" #c2 ", %%zmm" #c2 ", %%zmm" #c2 \
  "\n\t"                                         \
  "vpxord %%zmm" #c3 ", %%zmm" #c3 ", %%zmm" #c3 "\n\t"
#define TILE_LOOP(op)   \
  CLEAR(0, 1, 2, 3)     \
  CLEAR(4, 5, 6, 7)     \
  CLEAR(8, 9, 10, 11)   \
  CLEAR(12, 13, 14, 15) \
  CLEAR(16, 17, 18, 19) \
  CLEAR(20, 21, 22, 23) \
  "xor %[i], %[i]\n\t"                                                                                           \
  ".p2align 5\n\t"                                                                                               \
  "1:\n\t"                                                                                                       \
  STEP(op, 0) STEP(op, 1) STEP(op, 2) STEP(op, 3) \
  "add $1024, %[panel]\n\t" \
  "add $4, %[i]\n\t" \
  "cmp %[steps], %[i]\n\t" \
  "jne 1b\n\t"
#define KEEP(convert, c, offset) \
  convert(c) "vaddps " #offset "(%[sums]), %%zmm" #c ", %%zmm" #c "\n\tvmovups %%zmm" #c ", " #offset "(%[sums])\n\t"
#define KEEP_ROWS(convert) \
  KEEP(convert, 0, 0) KEEP(convert, 1, 64) KEEP(convert, 2, 128) KEEP(convert, 3, 192) \
  KEEP(convert, 4, 256) KEEP(convert, 5, 320) KEEP(convert, 6, 384) KEEP(convert, 7, 448) \
  KEEP(convert, 8, 512) KEEP(convert, 9, 576) KEEP(convert, 10, 640) KEEP(convert, 11, 704) \
  KEEP(convert, 12, 768) KEEP(convert, 13, 832) KEEP(convert, 14, 896) KEEP(convert, 15, 960) \
  KEEP(convert, 16, 1024) KEEP(convert, 17, 1088) KEEP(convert, 18, 1152) KEEP(convert, 19, 1216) \
  KEEP(convert, 20, 1280) KEEP(convert, 21, 1344) KEEP(convert, 22, 1408) KEEP(convert, 23, 1472)
#define FROM_INTEGERS(c) "vcvtdq2ps %%zmm" #c ", %%zmm" #c "\n\t"
#define FROM_FLOATS(c)
#define TILE_REGISTERS                                                                                                \
  "zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9", "zmm10", "zmm11", "zmm12", "zmm13", \
      "zmm14", "zmm15", "zmm16", "zmm17", "zmm18", "zmm19", "zmm20", "zmm21", "zmm22", "zmm23", "zmm24", "zmm25",     \
      "zmm26", "zmm27", "zmm28", "cc", "memory"
#define TILE(op, convert)                                                                                  \
  asm volatile(TILE_LOOP(op) KEEP_ROWS(convert)                                                            \
               : [panel] "+r"(panel), [i] "=&r"(i)                                                         \
               : [a0] "r"(row[0]), [a1] "r"(row[1]), [a2] "r"(row[2]), [a3] "r"(row[3]), [a4] "r"(row[4]), \
                 [a5] "r"(row[5]), [steps] "r"(steps), [sums] "r"(sums)                                    \
               : TILE_REGISTERS)
// clang-format on

// sums [6, kPanel] += six rows times `steps` (a multiple of 4) steps of a panel.
void tile(const int16_t* const* row, const int16_t* panel, int64_t steps, float* sums) {
  int64_t i;
  TILE("vpdpwssd", FROM_INTEGERS);
}

void tile(const float* const* row, const float* panel, int64_t steps, float* sums) {
  int64_t i;
  TILE("vfmadd231ps", FROM_FLOATS);
}

template <typename Element>
void block(const Element* a, const Element* panel, int64_t rows, bool first, float* sums, const float* soon,
           int64_t soon_stride) {
  constexpr int64_t kBlockBytes = 64 * 4 * kPanel;
  constexpr int64_t kSteps = 64, kDepth = kSteps * 4 / static_cast<int64_t>(sizeof(Element));
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  if (first) std::fill_n(sums, tiles * kTileRows * kPanel, 0.0f);
  for (int64_t t = 0; t < tiles; ++t) {
    const Element* row[kTileRows];  // past the end the last row again: kGemmRows has room for its sums
    for (int r = 0; r < kTileRows; ++r) row[r] = a + std::min(t * kTileRows + r, rows - 1) * kDepth;
    const auto* next = reinterpret_cast<const char*>(a + (t + 1) * kTileRows * kDepth);
    if (t + 1 < tiles)
      for (int line = 0; line < kTileRows * 4; ++line) _mm_prefetch(next + line * 64, _MM_HINT_T0);
    // The panel's next block lies behind this one: a sixteenth of it with every tile.
    const auto* ahead = reinterpret_cast<const char*>(panel) + kBlockBytes + t * (kBlockBytes / 16);
    for (int line = 0; line < kBlockBytes / 16 / 64; ++line) _mm_prefetch(ahead + line * 64, _MM_HINT_T0);
    if (soon != nullptr)
      for (int64_t r = t * kTileRows; r < std::min((t + 1) * kTileRows, rows); ++r)
        for (int line = 0; line < 4; ++line) __builtin_prefetch(soon + r * soon_stride + line * 16, 1);
    tile(row, panel, kSteps, sums + t * kTileRows * kPanel);
  }
}

void block16(const int16_t* a, const int16_t* panel, int64_t rows, bool first, float* sums, const float* soon,
             int64_t soon_stride) {
  block(a, panel, rows, first, sums, soon, soon_stride);
}

void block32(const float* a, const float* panel, int64_t rows, bool first, float* sums, const float* soon,
             int64_t soon_stride) {
  block(a, panel, rows, first, sums, soon, soon_stride);
}

static_assert(kBlock16 * sizeof(int16_t) == 256 && kBlock32 * sizeof(float) == 256, "64 steps of four bytes");
static_assert(kGemmRows % kTileRows == 0, "sums has whole tiles");
static_assert(kPanel == 64, "a tile is four registers wide");

void finish(const float* sums, float row_scale, const float* scale, const float* bias, int64_t count, bool quick_gelu,
            bool add, float* out) {
  for (int64_t c = 0; c < count; c += 16) {
    const __mmask16 lanes = first_lanes(count - c);
    __m512 value = _mm512_maskz_loadu_ps(lanes, sums + c);
    if (scale != nullptr)
      value = _mm512_mul_ps(value, _mm512_mul_ps(_mm512_set1_ps(row_scale), _mm512_maskz_loadu_ps(lanes, scale + c)));
    if (bias != nullptr) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(lanes, bias + c));
    if (quick_gelu) {
      const __m512 power = exponential(_mm512_mul_ps(value, _mm512_set1_ps(-1.702f)));
      value = _mm512_div_ps(value, _mm512_add_ps(_mm512_set1_ps(1.0f), power));
    }
    if (add) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(lanes, out + c));
    _mm512_mask_storeu_ps(out + c, lanes, value);
  }
}

// Four queries share what they load. Named sums, not arrays, for the compiler's sake as above.
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

// scores[i * padded + j] of four queries for the keys before `seen`, 32 keys at a time; padded is a multiple of 32.
void score_keys(const float* const* q, const float* keys_t, int64_t padded, int64_t seen, int64_t dim, float scale,
                float* scores) {
  const __m512 by = _mm512_set1_ps(scale);
  for (int64_t j = 0; j < seen; j += 32) {
    Sums8 s{};
    for (int64_t d = 0; d < dim; ++d) {
      const float* keys = keys_t + d * padded + j;
      multiply_two(s, q[0][d], q[1][d], q[2][d], q[3][d], _mm512_loadu_ps(keys), _mm512_loadu_ps(keys + 16));
    }
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

// Turns scores into powers of e; returns their sum.
float soften(float* scores, int64_t seen) {
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

void attend(const float* q, int64_t q_stride, const float* keys_t, int64_t padded, const float* const* values,
            int64_t length, int64_t dim, int64_t from, int64_t to, bool causal, float scale, float* scores, float* out,
            int64_t out_stride) {
  for (int64_t t = from; t < to; t += 4, q += 4 * q_stride, out += 4 * out_stride) {
    const int64_t count = std::min<int64_t>(4, to - t), most = causal ? t + count : length;
    const float* queries[4];
    for (int64_t i = 0; i < 4; ++i) queries[i] = q + std::min(i, count - 1) * q_stride;
    score_keys(queries, keys_t, padded, most, dim, scale, scores);
    float share[4];
    for (int64_t i = 0; i < 4; ++i) {
      const int64_t seen = causal ? std::min(t + i + 1, most) : length;
      share[i] = 1.0f / soften(scores + i * padded, seen);
      for (int64_t j = seen; j < most; ++j) scores[i * padded + j] = 0.0f;
    }
    for (int64_t d = 0; d < dim; d += 32) {
      const __mmask16 low = first_lanes(dim - d), high = first_lanes(dim - d - 16);
      Sums8 s{};
      for (int64_t j = 0; j < most; ++j)
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

}  // namespace

const TowerKernels kTowerAvx512 = {quantise, layer_norm, arrange, block16, block32, finish, attend};

}  // namespace dpad
