// AVX-512 with what Ice Lake was the first to have: VPOPCNTDQ counts the bits of each 64-bit lane, VBMI and VBMI2 move
// and compress bytes and words. Masked loads read the ends of rows.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own header warns (its bug 105593)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#define POPCOUNT(word) static_cast<int64_t>(_mm_popcnt_u64(word))

#include "simd/masks/edges_avx512.h"
#include "simd/masks/runs_avx512.h"
#include "simd/masks/shared_inl.h"

namespace dpad {
namespace {

// How many bytes ahead memory is prefetched. The processor's own prefetcher stops at the end of a page.
constexpr int64_t kAhead = 4096;

inline void prefetch_ahead(const uint8_t* p) { _mm_prefetch(reinterpret_cast<const char*>(p + kAhead), _MM_HINT_T0); }

inline __mmask64 first_bytes(int64_t n) { return n >= 64 ? ~__mmask64{0} : (__mmask64{1} << n) - 1; }

inline __m512i and_popcount(const uint64_t* a, const uint64_t* b, __mmask8 lanes) {
  const __m512i both = _mm512_and_si512(_mm512_maskz_loadu_epi64(lanes, a), _mm512_maskz_loadu_epi64(lanes, b));
  return _mm512_popcnt_epi64(both);
}

int64_t and_count(const uint64_t* a, int64_t stride_a, const uint64_t* b, int64_t stride_b, int64_t rows,
                  int64_t words) {
  if (words == stride_a && words == stride_b) {
    words *= rows;
    rows = rows > 0 ? 1 : 0;
  }
  // The boxes of most pairs overlap in a few words of some dozens of rows. Short loads cross into a second cache line
  // less often, and such a load costs twice, masked or not.
  if (words <= 4) {
    const __mmask8 lanes = first_lanes(words);
    __m256i total = _mm256_setzero_si256();
    for (int64_t y = 0; y < rows; ++y, a += stride_a, b += stride_b) {
      const __m256i both = _mm256_and_si256(_mm256_maskz_loadu_epi64(lanes, a), _mm256_maskz_loadu_epi64(lanes, b));
      total = _mm256_add_epi64(total, _mm256_popcnt_epi64(both));
    }
    return sum_lanes(_mm512_zextsi256_si512(total));
  }
  __m512i total = _mm512_setzero_si512();
  for (int64_t y = 0; y < rows; ++y, a += stride_a, b += stride_b)
    for (int64_t i = 0; i < words; i += 8)
      total = _mm512_add_epi64(total, and_popcount(a + i, b + i, first_lanes(words - i)));
  return sum_lanes(total);
}

int64_t count(const uint64_t* a, int64_t words) { return and_count(a, words, a, words, 1, words); }

inline uint8_t or_lanes(__m512i v) {
  uint8_t bytes[64];
  _mm512_storeu_si512(bytes, v);
  return or_bytes(bytes, 64);
}

Counts dense_counts(const uint8_t* a, const uint8_t* b, const uint8_t* ignore, int64_t n) {
  Counts counts;
  __m512i all = _mm512_setzero_si512();
  for (int64_t i = 0; i < n; i += 64) {
    prefetch_ahead(a + i);
    prefetch_ahead(b + i);
    const __mmask64 inside = first_bytes(n - i);
    const __m512i va = _mm512_maskz_loadu_epi8(inside, a + i), vb = _mm512_maskz_loadu_epi8(inside, b + i);
    uint64_t on_a = _mm512_test_epi8_mask(va, va), on_b = _mm512_test_epi8_mask(vb, vb);
    all = _mm512_or_si512(all, _mm512_or_si512(va, vb));
    if (ignore != nullptr) {
      const __m512i vi = _mm512_maskz_loadu_epi8(inside, ignore + i);
      all = _mm512_or_si512(all, vi);
      const uint64_t kept = _mm512_testn_epi8_mask(vi, vi);
      on_a &= kept;
      on_b &= kept;
    }
    counts.intersection += POPCOUNT(on_a & on_b);
    counts.uni += POPCOUNT(on_a | on_b);
  }
  counts.bytes = or_lanes(all);
  return counts;
}

inline uint64_t pack64(const uint8_t* bytes) {
  prefetch_ahead(bytes);
  const __m512i pixels = _mm512_loadu_si512(bytes);
  return _mm512_test_epi8_mask(pixels, pixels);
}

inline uint64_t pack_few(const uint8_t* bytes, int64_t n) {
  const __m512i pixels = _mm512_maskz_loadu_epi8(first_bytes(n), bytes);
  return _mm512_test_epi8_mask(pixels, pixels);
}

int64_t changes(const uint8_t* bytes, int64_t n, bool* last, uint32_t* positions) {
  return find_changes(bytes, n, last, positions, pack64, pack_few);
}

// Sums over the rows of a mask so far: counts of set pixels by lane, and the OR of all bytes.
struct Packed {
  __m512i area = _mm512_setzero_si512(), bytes = _mm512_setzero_si512();
};

inline void pack_row(const uint8_t* row, int64_t width, int64_t y, uint64_t* words, Extent& extent, Packed& packed) {
  uint64_t any = 0;
  int64_t n = 0;
  const auto pack_pixels = [&](__m512i pixels) {
    packed.bytes = _mm512_or_si512(packed.bytes, pixels);
    any |= words[n++] = _mm512_test_epi8_mask(pixels, pixels);
  };
  while (64 * (n + 1) <= width) {
    prefetch_ahead(row + 64 * n);
    pack_pixels(_mm512_loadu_si512(row + 64 * n));
  }
  if (64 * n < width) pack_pixels(_mm512_maskz_loadu_epi8(first_bytes(width - 64 * n), row + 64 * n));
  if (any == 0) return;
  if (y < extent.top) extent.top = y;
  if (y > extent.bottom) extent.bottom = y;
  for (int64_t i = 0; i < n; i += 8) {
    const __mmask8 lanes = first_lanes(n - i);
    const __m512i bits = _mm512_maskz_loadu_epi64(lanes, words + i);
    const __m512i columns = _mm512_maskz_loadu_epi64(lanes, extent.columns + i);
    packed.area = _mm512_add_epi64(packed.area, _mm512_popcnt_epi64(bits));
    _mm512_mask_storeu_epi64(extent.columns + i, lanes, _mm512_or_si512(columns, bits));
  }
}

// Measures each row while the next ones are on their way from memory. Reads the upper and the lower half of a mask in
// turns, because a core gets more bytes in a second from two places than from one.
uint8_t pack(const uint8_t* dense, int64_t height, int64_t width, uint64_t* words, Extent& extent) {
  const int64_t half = (height + 1) / 2, stride = words_for(width);
  Packed packed;
  for (int64_t y = 0, other = half; y < half; ++y, ++other) {
    pack_row(dense + y * width, width, y, words + y * stride, extent, packed);
    if (other < height) pack_row(dense + other * width, width, other, words + other * stride, extent, packed);
  }
  extent.area += sum_lanes(packed.area);
  return or_lanes(packed.bytes);
}

void unpack_row(const uint64_t* words, int64_t width, uint8_t* row) {
  for (int64_t x = 0; x < width; x += 64)
    _mm512_mask_storeu_epi8(row + x, first_bytes(width - x), _mm512_maskz_set1_epi8(*words++, 1));
}

// What short_numbers_one_by_one does, 64 characters at a time.
int64_t short_numbers(const char* text, int64_t length, int64_t* used, int16_t* values) {
  const __m512i iota =
      _mm512_set_epi8(62, 61, 60, 59, 58, 57, 56, 55, 54, 53, 52, 51, 50, 49, 48, 47, 46, 45, 44, 43, 42, 41, 40, 39,
                      38, 37, 36, 35, 34, 33, 32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15,
                      14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0);
  const __m512i five = _mm512_set1_epi8(31);
  int64_t at = 0, found = 0;
  while (at < length) {
    const __mmask64 inside = first_bytes(length - at);
    const __m512i codes = _mm512_sub_epi8(_mm512_maskz_loadu_epi8(inside, text + at), _mm512_set1_epi8(48));
    const uint64_t goes_on = _mm512_mask_test_epi8_mask(inside, codes, _mm512_set1_epi8(32));
    const uint64_t strange = _mm512_mask_cmpgt_epu8_mask(inside, codes, _mm512_set1_epi8(63));
    const uint64_t stop = strange | (goes_on & goes_on >> 1);
    const uint64_t before_stop = stop == 0 ? ~uint64_t{0} : (stop & (0 - stop)) - 1;
    const uint64_t ends = inside & ~goes_on & before_stop;
    if (ends == 0) break;
    const uint64_t second = goes_on << 1;  // characters that are the second of their number
    const __m512i bits = _mm512_and_si512(codes, five);
    const __m512i first = _mm512_maskz_permutexvar_epi8(second, iota, bits);
    for (int half = 0; half < 2; ++half) {
      const __mmask32 two = static_cast<__mmask32>(second >> (32 * half));
      const __mmask32 here = static_cast<__mmask32>(ends >> (32 * half));
      const __m512i last =
          _mm512_cvtepu8_epi16(half ? _mm512_extracti64x4_epi64(bits, 1) : _mm512_castsi512_si256(bits));
      const __m512i low =
          _mm512_cvtepu8_epi16(half ? _mm512_extracti64x4_epi64(first, 1) : _mm512_castsi512_si256(first));
      const __m512i value = _mm512_or_si512(low, _mm512_mask_slli_epi16(last, two, last, 5));
      const __m512i unused = _mm512_mask_blend_epi16(two, _mm512_set1_epi16(11), _mm512_set1_epi16(6));
      const __m512i signed_value = _mm512_srav_epi16(_mm512_sllv_epi16(value, unused), unused);
      _mm512_storeu_si512(values + found, _mm512_maskz_compress_epi16(here, signed_value));
      found += POPCOUNT(here);
    }
    at += 64 - __builtin_clzll(ends);
  }
  *used = at;
  return found;
}

// Takes all words as one long row of bits: bit i becomes the parity of bits 0..i.
inline void prefix_parity_of_all(uint64_t* words, int64_t n) {
  uint64_t carry = 0;
  for (int64_t i = 0; i < n; i += 8) {
    const __mmask8 lanes = first_lanes(n - i);
    __m512i v = _mm512_maskz_loadu_epi64(lanes, words + i);
    v = _mm512_xor_si512(v, _mm512_slli_epi64(v, 1));
    v = _mm512_xor_si512(v, _mm512_slli_epi64(v, 2));
    v = _mm512_xor_si512(v, _mm512_slli_epi64(v, 4));
    v = _mm512_xor_si512(v, _mm512_slli_epi64(v, 8));
    v = _mm512_xor_si512(v, _mm512_slli_epi64(v, 16));
    v = _mm512_xor_si512(v, _mm512_slli_epi64(v, 32));
    unsigned odd = _mm512_movepi64_mask(v);
    odd ^= odd << 1;
    odd ^= odd << 2;
    odd ^= odd << 4;
    const __mmask8 flipped = static_cast<__mmask8>(odd << 1 ^ (0u - carry));
    carry ^= odd >> 7 & 1;
    _mm512_mask_storeu_epi64(words + i, lanes, _mm512_mask_xor_epi64(v, flipped, v, _mm512_set1_epi64(-1)));
  }
}

// Calls part(y, i, lanes, words) with up to 8 words of a row, word i first. It goes down a strip of 8 words from top to
// bottom, then down the next strip. No mark is cleared meanwhile, because a masked store delays every load near it. The
// plane is a copy, so that the compiler keeps it in registers: no store to its words can change it.
template <typename Part>
inline void fold_parts(const FoldPlane plane, Part&& part) {
  const int64_t words = plane.words, size = plane.rows * words;
  const uint64_t* const sets = plane.down ? nullptr : plane.sets;
  if (!plane.down) prefix_parity_of_all(plane.toggles, size);
  for (int64_t i = 0; i < words; i += 8) {
    const __mmask8 lanes = first_lanes(words - i);
    const __mmask8 end = static_cast<__mmask8>(i + 8 >= words ? 1u << (words - 1 - i) : 0);
    const __m512i inside = _mm512_mask_set1_epi64(_mm512_set1_epi64(-1), end, static_cast<int64_t>(plane.last_mask));
    __m512i above = _mm512_setzero_si512();
    for (int64_t y = 0, at = i; y < plane.rows; ++y, at += words) {
      __m512i row = _mm512_xor_si512(above, _mm512_maskz_loadu_epi64(lanes, plane.toggles + at));
      if (plane.down) above = row;
      if (sets != nullptr) row = _mm512_or_si512(row, _mm512_maskz_loadu_epi64(lanes, sets + at));
      part(y, i, lanes, _mm512_and_si512(row, inside));
    }
  }
  __builtin_memset(plane.toggles, 0, static_cast<size_t>(size + (plane.down ? 0 : 1)) * sizeof(uint64_t));
  if (sets != nullptr) __builtin_memset(plane.sets, 0, static_cast<size_t>(size) * sizeof(uint64_t));
}

// Measures an Extent of words that come strip by strip.
class Measuring {
 public:
  explicit Measuring(const Extent& extent) : extent_(extent) {}

  void add(int64_t y, int64_t i, __mmask8 lanes, __m512i words) {
    if (i != strip_) next_strip(i);
    lanes_ = lanes;
    area_ = _mm512_add_epi64(area_, _mm512_popcnt_epi64(words));
    columns_ = _mm512_or_si512(columns_, words);
    if (_mm512_test_epi64_mask(words, words) == 0) return;
    extent_.top = y < extent_.top ? y : extent_.top;
    extent_.bottom = y > extent_.bottom ? y : extent_.bottom;
  }

  Extent finish() {
    next_strip(0);
    extent_.area += sum_lanes(area_);
    return extent_;
  }

 private:
  void next_strip(int64_t i) {
    _mm512_mask_storeu_epi64(extent_.columns + strip_, lanes_, columns_);
    columns_ = _mm512_setzero_si512();
    strip_ = i;
  }

  Extent extent_;
  int64_t strip_ = 0;
  __mmask8 lanes_ = 0;
  __m512i area_ = _mm512_setzero_si512(), columns_ = _mm512_setzero_si512();
};

// Counts all words, finds the first and the last row that is not empty, and reads the rows between them again.
void measure(const uint64_t* words, int64_t rows, int64_t stride, Extent& extent) {
  const int64_t size = rows * stride;
  extent.area += count(words, size);
  if (extent.area == 0) return;
  const auto any = [&](int64_t i) {
    const __m512i v = _mm512_maskz_loadu_epi64(first_lanes(size - i), words + i);
    return _mm512_test_epi64_mask(v, v);
  };
  int64_t first = 0, last = (size - 1) / 8 * 8;
  while (any(first) == 0) first += 8;
  while (any(last) == 0) last -= 8;
  first += __builtin_ctz(any(first));
  last += 31 - __builtin_clz(any(last));
  extent.top = first / stride;
  extent.bottom = last / stride;
  for (int64_t i = 0; i < stride; i += 8) {
    const __mmask8 lanes = first_lanes(stride - i);
    __m512i columns = _mm512_maskz_loadu_epi64(lanes, extent.columns + i);
    for (int64_t y = extent.top; y <= extent.bottom; ++y)
      columns = _mm512_or_si512(columns, _mm512_maskz_loadu_epi64(lanes, words + y * stride + i));
    _mm512_mask_storeu_epi64(extent.columns + i, lanes, columns);
  }
}

// One store for each cache line. Four stores of 16 bytes may go to memory one by one where a cache miss comes between.
void stream_lines(uint8_t* to, const uint8_t* from, int64_t lines) {
  for (int64_t i = 0; i < 64 * lines; i += 64)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + i),
                        from == nullptr ? _mm512_setzero_si512() : _mm512_loadu_si512(from + i));
}

void mark_edges(const double* xy, int64_t n, const EdgePlane& plane) {
  EdgeMarker marker(plane);
  marker.ring(xy, n);
}

void fold_draw(const FoldPlane& plane, const FoldDraw& target) {
  uint64_t* const out = target.out;
  const int64_t stride = target.stride;
  const bool merge = target.merge;
  const auto draw = [=](int64_t y, int64_t i, __mmask8 lanes, __m512i words) {
    uint64_t* const at = out + y * stride + i;
    if (merge) words = _mm512_or_si512(words, _mm512_maskz_loadu_epi64(lanes, at));
    _mm512_mask_storeu_epi64(at, lanes, words);
  };
  if (target.extent == nullptr) return fold_parts(plane, draw);
  Measuring measuring(*target.extent);
  fold_parts(plane, [&](int64_t y, int64_t i, __mmask8 lanes, __m512i words) {
    draw(y, i, lanes, words);
    measuring.add(y, i, lanes, words);
  });
  *target.extent = measuring.finish();
}

void fold_count(const FoldPlane& plane, FoldCount& target) {
  __m512i area = _mm512_setzero_si512(), both = area;
  const FoldCount from = target;
  fold_parts(plane, [&](int64_t y, int64_t i, __mmask8 lanes, __m512i words) {
    const int64_t at = y * from.stride + i;
    if (from.ignore != nullptr) words = _mm512_andnot_si512(_mm512_maskz_loadu_epi64(lanes, from.ignore + at), words);
    const __m512i truth = _mm512_maskz_loadu_epi64(lanes, from.truth + at);
    area = _mm512_add_epi64(area, _mm512_popcnt_epi64(words));
    both = _mm512_add_epi64(both, _mm512_popcnt_epi64(_mm512_and_si512(words, truth)));
  });
  target.area += sum_lanes(area);
  target.intersection += sum_lanes(both);
}

}  // namespace

const MaskTable kMaskAvx512 = {SimdLevel::avx512, and_count,     count,           measure,     dense_counts, pack,
                               changes,           short_numbers, add_differences, column_runs, fill_columns, unpack_row,
                               stream_lines,      mark_edges,    fold_draw,       fold_count};

}  // namespace dpad
