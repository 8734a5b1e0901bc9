// AMX with 8-bit integers, and AVX-512 for what becomes of the sums.
#include <algorithm>
#include <cmath>
#include <limits>

#include "simd/digit_kernels.h"
#include "simd/tower_avx512.h"

namespace dpad {
namespace {

// Instructions of their own and not the compilers' intrinsics: GCC's do not tell it that they read and write memory.
// Sums of rows r and columns c are in tile 2 r + c; 4 and 5 hold tiles of rows, 6 and 7 of columns.
#define TILE_LOAD(tile, from) asm volatile("tileloadd (%0,%1,1), %%tmm" #tile::"r"(from), "r"(int64_t{64}) : "memory")
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

// The lowest digit of q goes to `out`; the rest is returned.
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

// Sums of one block, by the power of 256 that they count, the highest first: [row half][column half][16][16] each.
struct alignas(64) Sums {
  int32_t power[kMostPowers][2][2][16][16];
};

// What becomes of the sums of one block of rows, row by row, so that it can be done between the tiles' instructions of
// the next block.
template <int kDigits>
class Finish {
 public:
  Finish(const DigitProduct& product, const Sums& sums) : product_(product), sums_(sums) {
    for (int c = 0; c < 2; ++c) {
      lanes_[c] = first_lanes(product.columns - 16 * c);
      scale_[c] = _mm512_maskz_loadu_ps(lanes_[c], product.column_scale + 16 * c);
      bias_[c] =
          product.bias == nullptr ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(lanes_[c], product.bias + 16 * c);
    }
  }

  void start(int64_t block) {
    first_ = block * kDigitRows;
    next_ = 0;
    count_ = std::min(kDigitRows, product_.rows - first_);
  }

  void rows(int64_t count) {
    for (const int64_t to = std::min(count_, next_ + count); next_ < to; ++next_) row(next_);
  }

  void rest() { rows(count_); }

 private:
  void row(int64_t r) {
    const __m512 by = _mm512_set1_ps(product_.row_scale[first_ + r]);
    float* out = product_.out + (first_ + r) * product_.out_stride;
    for (int c = 0; c < 2; ++c, out += 16) {
      const auto sums = [&](int power) { return _mm512_load_si512(sums_.power[power][r / 16][c][r % 16]); };
      __m512 value;
      if constexpr (kDigits == 2) {
        value = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(sums(0), 8), sums(1)));
      } else {
        const __m512 base = _mm512_set1_ps(256.0f);
        value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums(0)), base, _mm512_cvtepi32_ps(sums(1)));
        value = _mm512_fmadd_ps(value, base, _mm512_cvtepi32_ps(sums(2)));
        value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums(3)), _mm512_set1_ps(1.0f / 256.0f), value);
      }
      value = _mm512_fmadd_ps(_mm512_mul_ps(value, by), scale_[c], bias_[c]);
      if (product_.add) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(lanes_[c], out));
      if (product_.quick_gelu) value = quick_gelu_of(value);
      _mm512_mask_storeu_ps(out, lanes_[c], value);
    }
  }

  const DigitProduct& product_;
  const Sums& sums_;
  __mmask16 lanes_[2];
  __m512 scale_[2], bias_[2];
  int64_t first_ = 0, next_ = 0, count_ = 0;
};

// One digit of 32 rows times one digit of 32 columns, 64 deep; without `kBoth` only 16 rows are there.
template <bool kBoth>
inline void multiply_tiles(const int8_t* a, const int8_t* b) {
  TILE_LOAD(6, b);
  TILE_LOAD(4, a);
  TILE_MULTIPLY(4, 6, 0);
  TILE_LOAD(7, b + kTileBytes);
  TILE_MULTIPLY(4, 7, 1);
  if constexpr (kBoth) {
    TILE_LOAD(5, a + kTileBytes);
    TILE_MULTIPLY(5, 6, 2);
    TILE_MULTIPLY(5, 7, 3);
  }
}

void clear_sums() {
  TILE_ZERO(0);
  TILE_ZERO(1);
  TILE_ZERO(2);
  TILE_ZERO(3);
}

void store_sums(int32_t (*power)[2][16][16]) {
  TILE_STORE(0, power[0][0]);
  TILE_STORE(1, power[0][1]);
  TILE_STORE(2, power[1][0]);
  TILE_STORE(3, power[1][1]);
}

// All products of one block of rows whose digits' powers add up to `kPower` from the top. `between` runs at every step.
template <int kDigits, int kPower, bool kBoth, typename Between>
inline void multiply_power(const DigitProduct& p, const int8_t* a, Sums& sums, Between between) {
  clear_sums();
  for (int64_t s = 0; s < p.steps; ++s) {
    const int8_t* rows = a + s * kDigits * 2 * kTileBytes;
    const int8_t* columns = p.panel + s * p.panel_step;
    for (int d = std::max(0, kPower - kDigits + 1); d <= std::min(kPower, kDigits - 1); ++d)
      multiply_tiles<kBoth>(rows + d * 2 * kTileBytes, columns + (kPower - d) * 2 * kTileBytes);
    between(s);
  }
  store_sums(sums.power[kPower]);
}

template <int kDigits, bool kBoth>
inline void multiply_block(const DigitProduct& p, int64_t block, int64_t blocks, Sums& sums, Finish<kDigits>& finish) {
  const int8_t* a = p.a + block * p.a_stride;
  // While the highest digits are multiplied, the block before is finished.
  const int64_t share = (kDigitRows + p.steps - 1) / p.steps;
  multiply_power<kDigits, 0, kBoth>(p, a, sums, [&](int64_t) { finish.rows(share); });
  // Then the lines that this block will write are asked for, and its part of the next panel.
  const int64_t first = block * kDigitRows, count = std::min(kDigitRows, p.rows - first);
  constexpr int64_t kLines = kDigits * 2 * kTileBytes / 64;  // of a step
  const int64_t lines = (p.steps * kLines + blocks - 1) / blocks, each = (lines + p.steps - 1) / p.steps;
  int64_t line = block * lines;
  const int64_t last = p.ahead == nullptr ? 0 : std::min(p.steps * kLines, line + lines);
  multiply_power<kDigits, 1, kBoth>(p, a, sums, [&](int64_t s) {
    for (int64_t r = s * share; r < std::min(count, (s + 1) * share); ++r) {
      __builtin_prefetch(p.out + (first + r) * p.out_stride, 1);
      __builtin_prefetch(p.out + (first + r) * p.out_stride + 16, 1);
    }
    for (int64_t stop = std::min(last, line + each); line < stop; ++line)
      __builtin_prefetch(p.ahead + line / kLines * p.panel_step + line % kLines * 64, 0, 2);
  });
  if constexpr (kDigits == 3) {
    multiply_power<kDigits, 2, kBoth>(p, a, sums, [](int64_t) {});
    multiply_power<kDigits, 3, kBoth>(p, a, sums, [](int64_t) {});
  }
  finish.start(block);
}

template <int kDigits>
void multiply_panel(const DigitProduct& p) {
  Sums sums;
  Finish<kDigits> finish(p, sums);
  const int64_t blocks = (p.rows + kDigitRows - 1) / kDigitRows;
  for (int64_t b = 0; b < blocks; ++b) {
    if (p.rows - b * kDigitRows > 16)
      multiply_block<kDigits, true>(p, b, blocks, sums, finish);
    else
      multiply_block<kDigits, false>(p, b, blocks, sums, finish);
  }
  finish.rest();
}

void multiply(const DigitProduct& product, int digits) {
  if (digits == 2)
    multiply_panel<2>(product);
  else
    multiply_panel<3>(product);
}

}  // namespace

const DigitKernels kDigitAmx = {to_digits, begin, end, multiply};

}  // namespace dpad
