// AVX2 with POPCNT and BMI2. Long runs of words are counted with a carry-save tree (Mula, Kurz and Lemire, "Faster
// population counts using AVX2 instructions", 2016), short rows with the scalar instruction.
#include <immintrin.h>

#define POPCOUNT(word) static_cast<int64_t>(_mm_popcnt_u64(word))

#include "simd/masks/shared_inl.h"

namespace dpad {
namespace {

// How many bytes ahead memory is prefetched. The processor's own prefetcher stops at the end of a page.
constexpr int64_t kAhead = 4096;

inline void prefetch_ahead(const uint8_t* p) { _mm_prefetch(reinterpret_cast<const char*>(p + kAhead), _MM_HINT_T0); }

inline __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

inline __m256i byte_popcount(__m256i v) {
  const __m256i table =
      _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
  const __m256i low = _mm256_set1_epi8(15);
  const __m256i high = _mm256_and_si256(_mm256_srli_epi16(v, 4), low);
  return _mm256_add_epi8(_mm256_shuffle_epi8(table, _mm256_and_si256(v, low)), _mm256_shuffle_epi8(table, high));
}

inline __m256i popcount_lanes(__m256i v) { return _mm256_sad_epu8(byte_popcount(v), _mm256_setzero_si256()); }

inline int64_t sum_lanes(__m256i v) {
  const __m128i pair = _mm_add_epi64(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  return _mm_cvtsi128_si64(pair) + _mm_extract_epi64(pair, 1);
}

inline uint8_t or_lanes(__m256i v) {
  uint8_t bytes[32];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(bytes), v);
  return or_bytes(bytes, 32);
}

// Full adder on bits: high and low together are a + b + c.
inline void add3(__m256i& high, __m256i& low, __m256i a, __m256i b, __m256i c) {
  const __m256i half = _mm256_xor_si256(a, b);
  high = _mm256_or_si256(_mm256_and_si256(a, b), _mm256_and_si256(half, c));
  low = _mm256_xor_si256(half, c);
}

struct AndOf {
  const uint64_t* a;
  const uint64_t* b;
  __m256i operator()(int64_t i) const { return _mm256_and_si256(load(a + 4 * i), load(b + 4 * i)); }
};
struct Plain {
  const uint64_t* a;
  __m256i operator()(int64_t i) const { return load(a + 4 * i); }
};

// Population count of vectors 0..n-1, where n is a multiple of 8. Only one vector in eight is looked up in the table.
template <typename Source>
inline __m256i tree_count(const Source& at, int64_t n) {
  __m256i total = _mm256_setzero_si256(), ones = total, twos = total, fours = total;
  __m256i eights, fours_a, fours_b, twos_a, twos_b;
  for (int64_t i = 0; i < n; i += 8) {
    add3(twos_a, ones, ones, at(i), at(i + 1));
    add3(twos_b, ones, ones, at(i + 2), at(i + 3));
    add3(fours_a, twos, twos, twos_a, twos_b);
    add3(twos_a, ones, ones, at(i + 4), at(i + 5));
    add3(twos_b, ones, ones, at(i + 6), at(i + 7));
    add3(fours_b, twos, twos, twos_a, twos_b);
    add3(eights, fours, fours, fours_a, fours_b);
    total = _mm256_add_epi64(total, popcount_lanes(eights));
  }
  total = _mm256_add_epi64(_mm256_slli_epi64(total, 3), _mm256_slli_epi64(popcount_lanes(fours), 2));
  total = _mm256_add_epi64(total, _mm256_slli_epi64(popcount_lanes(twos), 1));
  return _mm256_add_epi64(total, popcount_lanes(ones));
}

int64_t long_and_count(const uint64_t* a, const uint64_t* b, int64_t words) {
  const int64_t vectors = words / 32 * 8;
  const int64_t tail = vectors * 4;
  return sum_lanes(tree_count(AndOf{a, b}, vectors)) + and_count_words(a + tail, b + tail, words - tail);
}

template <int kWords>
inline int64_t and_count_columns(const uint64_t* a, int64_t stride_a, const uint64_t* b, int64_t stride_b,
                                 int64_t rows) {
  int64_t total = 0;
  for (int64_t y = 0; y < rows; ++y, a += stride_a, b += stride_b)
    for (int i = 0; i < kWords; ++i) total += POPCOUNT(a[i] & b[i]);
  return total;
}

int64_t and_count(const uint64_t* a, int64_t stride_a, const uint64_t* b, int64_t stride_b, int64_t rows,
                  int64_t words) {
  if (words == stride_a && words == stride_b) return long_and_count(a, b, rows * words);
  switch (words) {
    case 1:
      return and_count_columns<1>(a, stride_a, b, stride_b, rows);
    case 2:
      return and_count_columns<2>(a, stride_a, b, stride_b, rows);
    case 3:
      return and_count_columns<3>(a, stride_a, b, stride_b, rows);
    case 4:
      return and_count_columns<4>(a, stride_a, b, stride_b, rows);
    case 5:
      return and_count_columns<5>(a, stride_a, b, stride_b, rows);
    case 6:
      return and_count_columns<6>(a, stride_a, b, stride_b, rows);
    default:
      break;
  }
  int64_t total = 0;
  for (int64_t y = 0; y < rows; ++y) total += long_and_count(a + y * stride_a, b + y * stride_b, words);
  return total;
}

int64_t count(const uint64_t* a, int64_t words) {
  const int64_t vectors = words / 32 * 8;
  const int64_t tail = vectors * 4;
  return sum_lanes(tree_count(Plain{a}, vectors)) + and_count_words(a + tail, a + tail, words - tail);
}

// The byte counters count pixels that are NOT in the intersection or the union. They are full after 255 steps and are
// then added up.
Counts dense_counts(const uint8_t* a, const uint8_t* b, const uint8_t* ignore, int64_t n) {
  const __m256i zero = _mm256_setzero_si256();
  __m256i missing_inter = zero, missing_union = zero, all = zero;
  const int64_t vectors = n / 32;
  for (int64_t done = 0; done < vectors;) {
    const int64_t stop = vectors - done < 255 ? vectors : done + 255;
    __m256i not_both = zero, neither = zero;
    for (; done < stop; ++done) {
      if (done % 2 == 0) {
        prefetch_ahead(a + 32 * done);
        prefetch_ahead(b + 32 * done);
      }
      const __m256i va = load(a + 32 * done), vb = load(b + 32 * done);
      __m256i off_a = _mm256_cmpeq_epi8(va, zero);
      __m256i off_b = _mm256_cmpeq_epi8(vb, zero);
      all = _mm256_or_si256(all, _mm256_or_si256(va, vb));
      if (ignore != nullptr) {
        const __m256i vi = load(ignore + 32 * done);
        all = _mm256_or_si256(all, vi);
        const __m256i skipped = _mm256_xor_si256(_mm256_cmpeq_epi8(vi, zero), _mm256_set1_epi8(-1));
        off_a = _mm256_or_si256(off_a, skipped);
        off_b = _mm256_or_si256(off_b, skipped);
      }
      not_both = _mm256_sub_epi8(not_both, _mm256_or_si256(off_a, off_b));
      neither = _mm256_sub_epi8(neither, _mm256_and_si256(off_a, off_b));
    }
    missing_inter = _mm256_add_epi64(missing_inter, _mm256_sad_epu8(not_both, zero));
    missing_union = _mm256_add_epi64(missing_union, _mm256_sad_epu8(neither, zero));
  }
  const int64_t tail = vectors * 32;
  Counts counts = dense_counts_tail(a + tail, b + tail, ignore == nullptr ? nullptr : ignore + tail, n - tail);
  counts.intersection += tail - sum_lanes(missing_inter);
  counts.uni += tail - sum_lanes(missing_union);
  counts.bytes |= or_lanes(all);
  return counts;
}

inline uint64_t pack32(__m256i pixels) {
  const __m256i off = _mm256_cmpeq_epi8(pixels, _mm256_setzero_si256());
  return static_cast<uint32_t>(~_mm256_movemask_epi8(off));
}

inline uint64_t pack64(const uint8_t* bytes) {
  prefetch_ahead(bytes);
  return pack32(load(bytes)) | pack32(load(bytes + 32)) << 32;
}

int64_t changes(const uint8_t* bytes, int64_t n, bool* last, uint32_t* positions) {
  return find_changes(bytes, n, last, positions, pack64, pack_bytes);
}

uint8_t pack(const uint8_t* dense, int64_t height, int64_t width, uint64_t* words, Extent& extent) {
  __m256i all = _mm256_setzero_si256();
  uint8_t ends = 0;
  pack_rows(dense, height, width, words, extent, [&](const uint8_t* row, int64_t n, uint64_t* to) {
    int64_t x = 0;
    for (; x + 64 <= n; x += 64) {
      prefetch_ahead(row + x);
      const __m256i low = load(row + x), high = load(row + x + 32);
      all = _mm256_or_si256(all, _mm256_or_si256(low, high));
      *to++ = pack32(low) | pack32(high) << 32;
    }
    if (x == n) return;
    *to = pack_bytes(row + x, n - x);
    ends |= or_bytes(row + x, n - x);
  });
  return static_cast<uint8_t>(ends | or_lanes(all));
}

inline void unpack32(uint32_t bits, uint8_t* out) {
  const __m256i spread =
      _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
  const __m256i bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201ULL));
  const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(bits)), spread);
  const __m256i on = _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit), _mm256_set1_epi8(1));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), on);
}

void unpack_row(const uint64_t* words, int64_t width, uint8_t* row) {
  int64_t x = 0;
  for (; x + 64 <= width; x += 64, ++words) {
    unpack32(static_cast<uint32_t>(*words), row + x);
    unpack32(static_cast<uint32_t>(*words >> 32), row + x + 32);
  }
  if (x < width) unpack_bits(*words, width - x, row + x);
}

}  // namespace

const MaskTable kMaskAvx2 = {SimdLevel::avx2,
                             and_count,
                             count,
                             measure_rows,
                             dense_counts,
                             pack,
                             changes,
                             short_numbers_one_by_one,
                             add_differences_one_by_one,
                             column_runs_one_by_one,
                             fill_columns_one_by_one,
                             unpack_row,
                             stream_lines_by_16,
                             mark_edges_one_by_one,
                             fold_draw_rows,
                             fold_count_rows};

}  // namespace dpad
