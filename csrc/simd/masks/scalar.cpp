// Plain C++, for every processor; tests compare the other levels with it.
#include <cstring>

#define POPCOUNT(word) popcount64(word)
namespace {
// Written out because __builtin_popcountll without the instruction is a call into a table.
inline int popcount64(unsigned long long word) {
#if defined(__aarch64__)
  return __builtin_popcountll(word);
#else
  word -= word >> 1 & 0x5555555555555555ULL;
  word = (word & 0x3333333333333333ULL) + (word >> 2 & 0x3333333333333333ULL);
  word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
  return static_cast<int>(word * 0x0101010101010101ULL >> 56);
#endif
}
}  // namespace

#include "simd/masks/shared_inl.h"

namespace dpad {
namespace {

int64_t and_count(const uint64_t* a, int64_t stride_a, const uint64_t* b, int64_t stride_b, int64_t rows,
                  int64_t words) {
  int64_t total = 0;
  for (int64_t y = 0; y < rows; ++y) total += and_count_words(a + y * stride_a, b + y * stride_b, words);
  return total;
}

int64_t count(const uint64_t* a, int64_t words) { return and_count_words(a, a, words); }

inline void pack_row(const uint8_t* row, int64_t width, uint64_t* words) {
  for (int64_t x = 0; x < width; x += 64) *words++ = pack_bytes(row + x, width - x < 64 ? width - x : 64);
}

uint8_t pack(const uint8_t* dense, int64_t height, int64_t width, uint64_t* words, Extent& extent) {
  uint8_t all = 0;
  pack_rows(dense, height, width, words, extent, [&](const uint8_t* row, int64_t n, uint64_t* to) {
    pack_row(row, n, to);
    all |= or_bytes(row, n);
  });
  return all;
}

int64_t changes(const uint8_t* bytes, int64_t n, bool* last, uint32_t* positions) {
  return find_changes(bytes, n, last, positions, [](const uint8_t* at) { return pack_bytes(at, 64); }, pack_bytes);
}

void unpack_row(const uint64_t* words, int64_t width, uint8_t* row) {
  for (int64_t x = 0; x < width; x += 64) unpack_bits(*words++, width - x < 64 ? width - x : 64, row + x);
}

}  // namespace

const MaskTable kMaskScalar = {SimdLevel::scalar,
                               and_count,
                               count,
                               measure_rows,
                               dense_counts_tail,
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
