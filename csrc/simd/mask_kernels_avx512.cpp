// AVX-512 with VPOPCNTDQ: a count per 64-bit lane in one instruction, and masked loads for the ends of rows.
#include <immintrin.h>

#define POPCOUNT(word) static_cast<int64_t>(_mm_popcnt_u64(word))

#include "simd/mask_kernels_inl.h"

namespace dpad {
namespace {

// How far ahead memory is asked for: the processor's own prefetcher stops at the end of a page.
constexpr int64_t kAhead = 4096;

inline void ask(const uint8_t* p) { _mm_prefetch(reinterpret_cast<const char*>(p + kAhead), _MM_HINT_T0); }

inline __mmask8 first_lanes(int64_t n) { return static_cast<__mmask8>(n >= 8 ? 0xff : (1u << n) - 1); }

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
  __m512i total = _mm512_setzero_si512();
  for (int64_t y = 0; y < rows; ++y, a += stride_a, b += stride_b)
    for (int64_t i = 0; i < words; i += 8)
      total = _mm512_add_epi64(total, and_popcount(a + i, b + i, first_lanes(words - i)));
  int64_t lanes[8];  // not _mm512_reduce_add_epi64: GCC 12 warns inside its header
  _mm512_storeu_si512(lanes, total);
  return lanes[0] + lanes[1] + lanes[2] + lanes[3] + lanes[4] + lanes[5] + lanes[6] + lanes[7];
}

int64_t count(const uint64_t* a, int64_t words) { return and_count(a, words, a, words, 1, words); }

Counts dense_counts(const uint8_t* a, const uint8_t* b, const uint8_t* ignore, int64_t n) {
  Counts counts;
  for (int64_t i = 0; i < n; i += 64) {
    ask(a + i);
    ask(b + i);
    const __mmask64 inside = first_bytes(n - i);
    const __m512i va = _mm512_maskz_loadu_epi8(inside, a + i), vb = _mm512_maskz_loadu_epi8(inside, b + i);
    uint64_t on_a = _mm512_test_epi8_mask(va, va), on_b = _mm512_test_epi8_mask(vb, vb);
    if (ignore != nullptr) {
      const __m512i vi = _mm512_maskz_loadu_epi8(inside, ignore + i);
      const uint64_t kept = _mm512_testn_epi8_mask(vi, vi);
      on_a &= kept;
      on_b &= kept;
    }
    counts.intersection += POPCOUNT(on_a & on_b);
    counts.uni += POPCOUNT(on_a | on_b);
  }
  return counts;
}

inline uint64_t pack64(const uint8_t* bytes) {
  ask(bytes);
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

void pack_row(const uint8_t* row, int64_t width, uint64_t* words) {
  int64_t x = 0;
  for (; x + 64 <= width; x += 64) *words++ = pack64(row + x);
  if (x < width) *words = pack_few(row + x, width - x);
}

void unpack_row(const uint64_t* words, int64_t width, uint8_t* row) {
  for (int64_t x = 0; x < width; x += 64)
    _mm512_mask_storeu_epi8(row + x, first_bytes(width - x), _mm512_maskz_set1_epi8(*words++, 1));
}

}  // namespace

const MaskKernels kMaskKernelsAvx512 = {"avx512", and_count,  count,     dense_counts,
                                        pack_row, changes,    unpack_row, fold_draw, fold_count};

}  // namespace dpad
