// Run lengths with AVX-512: from differences, to runs in columns, to the bits of columns. In an unnamed namespace as
// simd/masks/shared_inl.h says.
#pragma once

#include "simd/masks/lanes_avx512.h"
#include "simd/masks/shared_inl.h"
#include "simd/masks/table.h"

namespace dpad {
namespace {

// Lane i becomes the sum of lanes i, i - kStep, i - 2 kStep, ...
template <int kStep>
inline __m512i prefix_sum(__m512i v) {
  const __m512i zero = _mm512_setzero_si512();
  if (kStep == 1) v = _mm512_add_epi32(v, _mm512_alignr_epi32(v, zero, 15));
  v = _mm512_add_epi32(v, _mm512_alignr_epi32(v, zero, 14));
  v = _mm512_add_epi32(v, _mm512_alignr_epi32(v, zero, 12));
  return _mm512_add_epi32(v, _mm512_alignr_epi32(v, zero, 8));
}

bool add_differences(const int16_t* values, int64_t n, uint32_t max_count, uint32_t* counts, int64_t* total) {
  const __m512i even = _mm512_set1_epi64(0xffffffff), last_two = _mm512_set1_epi64(int64_t{15} << 32 | 14);
  __m512i before = _mm512_set1_epi64(static_cast<int64_t>(uint64_t{counts[-1]} << 32 | counts[-2]));
  __m512i sum = _mm512_setzero_si512(), largest = sum;
  for (int64_t i = 0; i < n; i += 16) {
    const auto lanes = static_cast<__mmask16>(n - i >= 16 ? 0xffff : (1u << (n - i)) - 1);
    const __m512i changes = _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(lanes, values + i));
    const __m512i here = _mm512_add_epi32(prefix_sum<2>(changes), before);
    before = _mm512_permutexvar_epi32(last_two, here);
    const __m512i valid = _mm512_maskz_mov_epi32(lanes, here);
    largest = _mm512_max_epu32(largest, valid);
    sum = _mm512_add_epi64(sum, _mm512_add_epi64(_mm512_and_si512(valid, even), _mm512_srli_epi64(valid, 32)));
    _mm512_mask_storeu_epi32(counts + i, lanes, here);
  }
  *total += sum_lanes(sum);
  return _mm512_reduce_max_epu32(largest) <= max_count;
}

// Eight pairs of runs at a time where, as usual, no set run goes on in the next column; else one by one.
void column_runs(const uint32_t* counts, int64_t n, int64_t height, ColumnRuns& runs) {
  ColumnRuns found = runs;
  const __m256i rows = _mm256_set1_epi32(static_cast<int32_t>(height));
  const __m512d column = _mm512_set1_pd(1. / static_cast<double>(height));
  __m512i before = _mm512_setzero_si512();
  __m256i sum = _mm256_setzero_si256(), top = _mm256_set1_epi32(found.top), bottom = _mm256_set1_epi32(found.bottom);
  for (int64_t i = 0; i + 1 < n; i += 16) {
    const int64_t in_pairs = (n - i) & ~int64_t{1};
    const auto lanes = static_cast<__mmask16>(in_pairs >= 16 ? 0xffff : (1u << in_pairs) - 1);
    const __m512i both = _mm512_maskz_loadu_epi32(lanes, counts + i);
    const __m512i ends = _mm512_add_epi32(prefix_sum<1>(both), before);
    before = _mm512_permutexvar_epi32(_mm512_set1_epi32(15), ends);
    const __m256i start = _mm512_cvtepi64_epi32(ends), size = _mm512_cvtepi64_epi32(_mm512_srli_epi64(both, 32));
    // Half a pixel is added, so that no quotient lies as near to a whole number as rounding could move it.
    const __m512d middle = _mm512_add_pd(_mm512_cvtepu32_pd(start), _mm512_set1_pd(.5));
    const __m256i x = _mm512_cvttpd_epi32(_mm512_mul_pd(middle, column));
    const __m256i y = _mm256_sub_epi32(start, _mm256_mullo_epi32(x, rows)), end = _mm256_add_epi32(y, size);
    const __mmask8 some = _mm256_test_epi32_mask(size, size);
    if (_mm256_mask_cmpgt_epi32_mask(some, end, rows) != 0) {
      alignas(32) uint32_t places[2][8];
      _mm256_store_si256(reinterpret_cast<__m256i*>(places[0]), start);
      _mm256_store_si256(reinterpret_cast<__m256i*>(places[1]), size);
      for (int k = 0; k < 8; ++k) {
        int64_t from_x = places[0][k] / height, from_y = places[0][k] % height;
        add_long_run(found, from_x, from_y, places[1][k], height);
      }
      continue;
    }
    sum = _mm256_add_epi32(sum, size);
    top = _mm256_mask_min_epi32(top, some, top, y);
    bottom = _mm256_mask_max_epi32(bottom, some, bottom, end);
    const auto keep = [&](int32_t* to, __m256i values) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + found.n), _mm256_maskz_compress_epi32(some, values));
    };
    keep(found.x, x);
    keep(found.begin, y);
    keep(found.end, end);
    found.n += POPCOUNT(static_cast<uint64_t>(some));
  }
  alignas(32) int32_t lowest[8], highest[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lowest), top);
  _mm256_store_si256(reinterpret_cast<__m256i*>(highest), bottom);
  for (int k = 0; k < 8; ++k) {
    found.top = lowest[k] < found.top ? lowest[k] : found.top;
    found.bottom = highest[k] > found.bottom ? highest[k] : found.bottom;
  }
  found.pixels += sum_lanes(_mm512_cvtepu32_epi64(sum));
  runs = found;
}

// A column of up to 512 pixels is one register, which is stored after each of its runs. No bits are loaded, and there
// is no branch for the word where a run ends or for the next column.
void fill_columns(const ColumnRuns& runs, const ColumnBits& bits) {
  if (bits.stride > kColumnSlack) return fill_columns_one_by_one(runs, bits);
  const ColumnRuns from = runs;
  uint64_t* const words = bits.words;
  const int64_t stride = bits.stride, first = bits.x;
  const __m512i ones = _mm512_set1_epi64(-1), zero = _mm512_setzero_si512();
  // The low 16 bits hold each lane's first pixel. The other bits are set, so that subtracting them gives 0.
  const __m512i starts = _mm512_or_si512(
      _mm512_add_epi64(_mm512_set_epi64(448, 384, 320, 256, 192, 128, 64, 0), _mm512_set1_epi64(bits.y)),
      _mm512_set1_epi64(~int64_t{0xffff}));
  const auto after = [&](int32_t y) {  // all bits from pixel y on: shifts of 64 and more leave none
    return _mm512_sllv_epi64(ones, _mm512_subs_epu16(_mm512_set1_epi32(y), starts));
  };
  __m512i column = zero;
  int32_t x = -1;
  for (int64_t i = 0; i < from.n; ++i) {
    const __m512i run = _mm512_andnot_si512(after(from.end[i]), after(from.begin[i]));
    const auto more = static_cast<__mmask8>(0 - static_cast<int>(from.x[i] == x));
    column = _mm512_mask_or_epi64(run, more, run, column);
    x = from.x[i];
    _mm512_storeu_si512(words + (x - first) * stride, column);
  }
}

}  // namespace
}  // namespace dpad
