// AMX multiplies 8-bit integers, and AVX-512 turns the sums into floats.
#include <algorithm>
#include <cmath>
#include <limits>

#include "simd/digits/table.h"
#include "simd/tower/vectors_avx512.h"

namespace dpad {
namespace {

// Assembly instead of intrinsics, because GCC's intrinsics do not say that they read and write memory. Tiles 0 to 3
// hold the sums.
#define TILE_LOAD(tile, from) asm volatile("tileloadd (%0,%1,1), %%tmm" #tile::"r"(from), "r"(int64_t{64}) : "memory")
// Loads past the first-level cache. The panel stays there, while its product reads every row only once.
#define TILE_LOAD_ROWS(tile, from) \
  asm volatile("tileloaddt1 (%0,%1,1), %%tmm" #tile::"r"(from), "r"(int64_t{64}) : "memory")
#define TILE_STORE(tile, to) asm volatile("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"(to), "r"(int64_t{64}) : "memory")
#define TILE_ZERO(tile) asm volatile("tilezero %tmm" #tile)
#define TILE_MULTIPLY(a, b, sums) asm volatile("tdpbssd %tmm" #b ", %tmm" #a ", %tmm" #sums)

void begin() {
  struct alignas(64) Configuration {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
  const Configuration configuration;
  asm volatile("ldtilecfg %0" ::"m"(configuration));
}

void end() { asm volatile("tilerelease"); }

struct Range {
  float largest, norm;
};

Range range_of(const float* x, int64_t count) {
  __m512 squares[4], largest[4];
  for (int j = 0; j < 4; ++j) squares[j] = largest[j] = _mm512_setzero_ps();
  for (int64_t i = 0; i < count; i += 64)
    for (int j = 0; j < 4; ++j) {
      const __m512 value = _mm512_maskz_loadu_ps(first_lanes(count - i - 16 * j), x + i + 16 * j);
      squares[j] = _mm512_fmadd_ps(value, value, squares[j]);
      largest[j] = _mm512_max_ps(largest[j], _mm512_abs_ps(value));
    }
  const __m512 sum = _mm512_add_ps(_mm512_add_ps(squares[0], squares[1]), _mm512_add_ps(squares[2], squares[3]));
  const __m512 top = _mm512_max_ps(_mm512_max_ps(largest[0], largest[1]), _mm512_max_ps(largest[2], largest[3]));
  return {_mm512_reduce_max_ps(top), std::sqrt(_mm512_reduce_add_ps(sum))};
}

// Stores the lowest digit of q at `out`, and returns the higher digits.
inline __m512i take_digit(__m512i q, int8_t* out) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtepi32_epi8(q));
  const __m512i digit = _mm512_srai_epi32(_mm512_slli_epi32(q, 24), 24);
  return _mm512_srai_epi32(_mm512_sub_epi32(q, digit), 8);
}

float to_digits(const float* x, int64_t count, int digits, int8_t* out, int64_t digit_stride, int64_t step_stride) {
  const Range range = range_of(x, count);
  const bool finite = std::isfinite(range.norm), sound = finite && range.norm > kNothingInDigits;
  const float by = sound ? std::min(kLargestDigits[digits] / range.largest,
                                    digits == 2 ? kDigitNorm / range.norm : std::numeric_limits<float>::infinity())
                         : 0.0f;
  const __m512 factor = _mm512_set1_ps(by);
  const __mmask16 kept = sound ? static_cast<__mmask16>(0xFFFF) : static_cast<__mmask16>(0);
  for (int64_t i = 0; i < count; i += kDigitStep, out += step_stride)
    for (int64_t j = 0; j < kDigitStep; j += 16) {
      const __m512 value = _mm512_maskz_loadu_ps(first_lanes(count - i - j), x + i + j);
      __m512i q = _mm512_maskz_cvtps_epi32(kept, _mm512_mul_ps(value, factor));
      for (int d = digits - 1; d > 0; --d) q = take_digit(q, out + d * digit_stride + j);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + j), _mm512_cvtepi32_epi8(q));
    }
  if (!finite) return std::numeric_limits<float>::quiet_NaN();
  return sound ? 1.0f / by : 0.0f;
}

// Sums as the tiles give them, one tile for each power of 256. With two digits: the two highest powers of one block of
// rows, then those of a second block. With three digits: the four highest powers of one block.
struct alignas(64) Sums {
  int32_t tile[4][16][16];
};

// Turns sums into results row by row, so that this work fits between the tile instructions for the next rows.
template <int kDigits>
class RowFinisher {
 public:
  RowFinisher(const DigitProduct& product, const Sums& sums)
      : product_(product), sums_(sums), lanes_(first_lanes(product.columns)) {
    scale_ = _mm512_maskz_loadu_ps(lanes_, product.column_scale);
    bias_ = product.bias == nullptr ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(lanes_, product.bias);
  }

  // From now on the sums belong to `count` rows from `first` on.
  void start(int64_t first, int64_t count) {
    first_ = first;
    next_ = 0;
    count_ = count;
  }

  void rows(int64_t count) {
    for (const int64_t to = std::min(count_, next_ + count); next_ < to; ++next_) row(next_);
  }

  void remaining_rows() { rows(count_); }

 private:
  void row(int64_t r) {
    const auto sums = [&](int64_t tile) { return _mm512_load_si512(sums_.tile[tile][r % 16]); };
    __m512 value;
    if constexpr (kDigits == 2) {
      const int64_t block = r / 16 * 2;
      value = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(sums(block), 8), sums(block + 1)));
    } else {
      const __m512 base = _mm512_set1_ps(256.0f);
      value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums(0)), base, _mm512_cvtepi32_ps(sums(1)));
      value = _mm512_fmadd_ps(value, base, _mm512_cvtepi32_ps(sums(2)));
      value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums(3)), _mm512_set1_ps(1.0f / 256.0f), value);
    }
    const __m512 by = _mm512_set1_ps(product_.row_scale[first_ + r]);
    float* out = product_.out + (first_ + r) * product_.out_stride;
    value = _mm512_fmadd_ps(_mm512_mul_ps(value, by), scale_, bias_);
    if (product_.add) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(lanes_, out));
    if (product_.quick_gelu) value = quick_gelu_of(value);
    _mm512_mask_storeu_ps(out, lanes_, value);
  }

  const DigitProduct& product_;
  const Sums& sums_;
  __mmask16 lanes_;
  __m512 scale_, bias_;
  int64_t first_ = 0, next_ = 0, count_ = 0;
};

// One step of two digits. `a` and `other` are blocks of rows; kBoth says whether there is a second one.
template <bool kBoth>
inline void step_of_two(const int8_t* a, const int8_t* other, const int8_t* b) {
  TILE_LOAD(6, b);
  TILE_LOAD_ROWS(4, a);
  TILE_MULTIPLY(4, 6, 0);
  TILE_LOAD(7, b + kTileBytes);
  TILE_MULTIPLY(4, 7, 1);
  if constexpr (kBoth) {
    TILE_LOAD_ROWS(5, other);
    TILE_MULTIPLY(5, 6, 2);
    TILE_MULTIPLY(5, 7, 3);
  }
  TILE_LOAD_ROWS(4, a + kTileBytes);
  TILE_MULTIPLY(4, 6, 1);
  if constexpr (kBoth) {
    TILE_LOAD_ROWS(5, other + kTileBytes);
    TILE_MULTIPLY(5, 6, 3);
  }
}

// One step of three digits.
inline void step_of_three(const int8_t* a, const int8_t* b) {
  TILE_LOAD(7, b);
  TILE_LOAD_ROWS(4, a);
  TILE_MULTIPLY(4, 7, 0);
  TILE_LOAD_ROWS(5, a + kTileBytes);
  TILE_MULTIPLY(5, 7, 1);
  TILE_LOAD_ROWS(6, a + 2 * kTileBytes);
  TILE_MULTIPLY(6, 7, 2);
  TILE_LOAD(7, b + kTileBytes);
  TILE_MULTIPLY(4, 7, 1);
  TILE_MULTIPLY(5, 7, 2);
  TILE_MULTIPLY(6, 7, 3);
  TILE_LOAD(7, b + 2 * kTileBytes);
  TILE_MULTIPLY(4, 7, 2);
  TILE_MULTIPLY(5, 7, 3);
}

// Multiplies rows [first, first + count) with the panel: one block of rows, or with two digits up to two. Meanwhile it
// finishes the rows before them, and prefetches `lines` cache lines of the next panel, from `line` on.
template <int kDigits, bool kBoth>
inline void multiply_rows(const DigitProduct& p, int64_t first, int64_t count, int64_t line, int64_t lines, Sums& sums,
                          RowFinisher<kDigits>& finisher) {
  constexpr int64_t kLines = kDigits * kTileBytes / 64;  // of a step
  const int8_t* a = p.a + first / kDigitRows * p.a_stride;
  const int64_t share = ((kBoth ? 2 : 1) * kDigitRows + p.steps - 1) / p.steps, ask = (lines + p.steps - 1) / p.steps;
  TILE_ZERO(0);
  TILE_ZERO(1);
  TILE_ZERO(2);
  TILE_ZERO(3);
  for (int64_t s = 0; s < p.steps; ++s) {
    const int8_t *rows = a + s * kDigits * kTileBytes, *columns = p.panel + s * p.panel_step;
    if constexpr (kDigits == 2)
      step_of_two<kBoth>(rows, rows + p.a_stride, columns);
    else
      step_of_three(rows, columns);
    finisher.rows(share);
    for (int64_t r = s * share; r < std::min(count, (s + 1) * share); ++r)
      __builtin_prefetch(p.out + (first + r) * p.out_stride, 1);
    for (int64_t i = std::min(lines, s * ask); i < std::min(lines, (s + 1) * ask); ++i)
      __builtin_prefetch(p.next_panel + (line + i) / kLines * p.panel_step + (line + i) % kLines * 64, 0, 2);
  }
  finisher.remaining_rows();
  TILE_STORE(0, sums.tile[0]);
  TILE_STORE(1, sums.tile[1]);
  TILE_STORE(2, sums.tile[2]);
  TILE_STORE(3, sums.tile[3]);
  finisher.start(first, count);
}

template <int kDigits>
void multiply_panel(const DigitProduct& p) {
  Sums sums;
  RowFinisher<kDigits> finisher(p, sums);
  constexpr int64_t kAtOnce = kDigits == 2 ? 2 * kDigitRows : kDigitRows;
  const int64_t blocks = (p.rows + kAtOnce - 1) / kAtOnce;
  const int64_t next_panel_lines = p.next_panel == nullptr ? 0 : p.steps * kDigits * kTileBytes / 64;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t first = b * kAtOnce, count = std::min(kAtOnce, p.rows - first);
    const int64_t line = next_panel_lines * b / blocks, lines = next_panel_lines * (b + 1) / blocks - line;
    if (count > kDigitRows)
      multiply_rows<kDigits, true>(p, first, count, line, lines, sums, finisher);
    else
      multiply_rows<kDigits, false>(p, first, count, line, lines, sums, finisher);
  }
  finisher.remaining_rows();
}

void multiply(const DigitProduct& product, int digits) {
  if (digits == 2)
    multiply_panel<2>(product);
  else
    multiply_panel<3>(product);
}

}  // namespace

const DigitTable kDigitAmx = {SimdLevel::amx, 4, to_digits, begin, end, multiply};

}  // namespace dpad
