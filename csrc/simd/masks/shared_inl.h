// Loops shared by scalar.cpp, avx2.cpp and avx512.cpp, compiled once per instruction set. Everything is in an
// unnamed namespace and calls no inline function of the standard library: the linker would merge such a function's
// copies and might keep the one that uses instructions the processor lacks. POPCOUNT(word) comes from the including
// file.
#pragma once

#include "simd/masks/line_rows.h"
#include "simd/masks/table.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace dpad {
namespace {

inline int64_t and_count_words(const uint64_t* a, const uint64_t* b, int64_t words) {
  int64_t total = 0;
  for (int64_t i = 0; i < words; ++i) total += POPCOUNT(a[i] & b[i]);
  return total;
}

constexpr int kPositionBits = 16;

// A line sets the pixels that it covers. In each row that an edge crosses, the pixels behind the edge's position are
// flipped; positions are in 16.16 fixed point. Where a position is a whole number, OpenCV sets that pixel. Here the
// line has set it already: within 32768 rows a position is off by less than half a pixel.
inline void mark_edges_one_by_one(const double* xy, int64_t n, const EdgePlane& plane) {
  constexpr int kShift = kPositionBits;
  uint64_t *const toggles = plane.toggles, *const sets = plane.sets;
  const int64_t words = plane.words, origin = -plane.top * words - plane.left;
  auto x1 = static_cast<int64_t>(xy[2 * n - 2]), y1 = static_cast<int64_t>(xy[2 * n - 1]);
  for (int64_t i = 0; i < n; ++i) {
    const auto x2 = static_cast<int64_t>(xy[2 * i]), y2 = static_cast<int64_t>(xy[2 * i + 1]);
    const bool up = y1 > y2;
    const int64_t above = up ? x2 : x1, below = up ? x1 : x2, rows = up ? y1 - y2 : y2 - y1;
    int64_t row = origin + (up ? y2 : y1) * words;
    LineRows line(above, below, rows);
    // The same as integer division: a quotient that is not whole lies further from a whole number than doubles round.
    const auto slope = static_cast<int64_t>(static_cast<double>((below - above) * (1 << kShift)) /
                                            static_cast<double>(rows > 1 ? rows : 1));
    int64_t behind = (above + 1) * (1 << kShift);
    for (const int64_t end = row + rows * words; row < end; row += words, behind += slope) {
      line.next(sets, row);
      toggles[row + (behind >> (kShift + 6))] ^= uint64_t{1} << (behind >> kShift & 63);
    }
    line.next(sets, row);
    x1 = x2;
    y1 = y2;
  }
}

// Bit i of the result is the parity of bits 0..i: what the toggles of one word leave set.
inline uint64_t prefix_parity(uint64_t word) {
  word ^= word << 1;
  word ^= word << 2;
  word ^= word << 4;
  word ^= word << 8;
  word ^= word << 16;
  return word ^ (word << 32);
}

template <typename Row>
inline void fold_down(const FoldPlane& plane, Row&& row) {
  uint64_t* above = plane.toggles;
  row(0, above);
  for (int64_t y = 1; y < plane.rows; ++y) {
    uint64_t* here = plane.toggles + y * plane.words;
    for (int64_t i = 0; i < plane.words; ++i) here[i] ^= above[i];
    row(y, here);
    for (int64_t i = 0; i < plane.words; ++i) above[i] = 0;
    above = here;
  }
  for (int64_t i = 0; i < plane.words; ++i) above[i] = 0;
}

template <typename Row>
inline void fold_right(const FoldPlane& plane, Row&& row) {
  uint64_t* const toggles = plane.toggles;
  const int64_t size = plane.rows * plane.words;
  // First all words by themselves, so that the compiler vectorises the loop; then the carries from word to word.
  for (int64_t i = 0; i < size; ++i) toggles[i] = prefix_parity(toggles[i]);
  uint64_t carry = 0;
  for (int64_t y = 0; y < plane.rows; ++y) {
    uint64_t* here = toggles + y * plane.words;
    for (int64_t i = 0; i < plane.words; ++i) {
      here[i] ^= carry;
      carry = uint64_t{0} - (here[i] >> 63);
    }
    if (plane.sets != nullptr) {
      uint64_t* sets = plane.sets + y * plane.words;
      for (int64_t i = 0; i < plane.words; ++i) {
        here[i] |= sets[i];
        sets[i] = 0;
      }
    }
    here[plane.words - 1] &= plane.last_mask;
    row(y, here);
    for (int64_t i = 0; i < plane.words; ++i) here[i] = 0;
  }
  toggles[size] = 0;
}

template <typename Row>
inline void fold(const FoldPlane& plane, Row&& row) {
  if (plane.rows <= 0 || plane.words <= 0) return;
  if (plane.down)
    fold_down(plane, row);
  else
    fold_right(plane, row);
}

inline void measure_row(const uint64_t* words, int64_t n, int64_t y, Extent& extent) {
  uint64_t any = 0;
  for (int64_t i = 0; i < n; ++i) {
    extent.columns[i] |= words[i];
    extent.area += POPCOUNT(words[i]);
    any |= words[i];
  }
  if (any == 0) return;
  if (extent.bottom < 0) extent.top = y;
  extent.bottom = y;
}

inline void measure_rows(const uint64_t* words, int64_t rows, int64_t stride, Extent& extent) {
  for (int64_t y = 0; y < rows; ++y) measure_row(words + y * stride, stride, y, extent);
}

// pack_row(row, width, words) packs one row.
template <typename PackRow>
inline void pack_rows(const uint8_t* dense, int64_t height, int64_t width, uint64_t* words, Extent& extent,
                      PackRow&& pack_row) {
  const int64_t stride = words_for(width);
  for (int64_t y = 0; y < height; ++y, dense += width, words += stride) {
    pack_row(dense, width, words);
    measure_row(words, stride, y, extent);
  }
}

inline void fold_draw_rows(const FoldPlane& plane, const FoldDraw& target) {
  fold(plane, [&](int64_t y, const uint64_t* words) {
    uint64_t* out = target.out + y * target.stride;
    if (target.merge)
      for (int64_t i = 0; i < plane.words; ++i) out[i] |= words[i];
    else
      for (int64_t i = 0; i < plane.words; ++i) out[i] = words[i];
    if (target.extent != nullptr) measure_row(words, plane.words, y, *target.extent);
  });
}

inline void fold_count_rows(const FoldPlane& plane, FoldCount& target) {
  int64_t area = 0, intersection = 0;
  fold(plane, [&](int64_t y, const uint64_t* words) {
    const uint64_t* truth = target.truth + y * target.stride;
    if (target.ignore == nullptr) {
      for (int64_t i = 0; i < plane.words; ++i) {
        area += POPCOUNT(words[i]);
        intersection += POPCOUNT(words[i] & truth[i]);
      }
      return;
    }
    const uint64_t* ignore = target.ignore + y * target.stride;
    for (int64_t i = 0; i < plane.words; ++i) {
      const uint64_t kept = words[i] & ~ignore[i];
      area += POPCOUNT(kept);
      intersection += POPCOUNT(kept & truth[i]);
    }
  });
  target.area += area;
  target.intersection += intersection;
}

// MaskTable::changes, 64 bytes at a time. pack64 gives the pixels of 64 bytes as bits, pack_few those of fewer.
template <typename Pack64, typename PackFew>
inline int64_t find_changes(const uint8_t* bytes, int64_t n, bool* last, uint32_t* positions, Pack64 pack64,
                            PackFew pack_few) {
  uint64_t before = *last;
  int64_t found = 0;
  for (int64_t i = 0; i < n; i += 64) {
    const int64_t size = n - i < 64 ? n - i : 64;
    const uint64_t bits = size == 64 ? pack64(bytes + i) : pack_few(bytes + i, size);
    uint64_t changes = bits ^ (bits << 1 | before);
    if (size < 64) changes &= (uint64_t{1} << size) - 1;
    before = bits >> (size - 1) & 1;
    for (; changes != 0; changes &= changes - 1)
      positions[found++] = static_cast<uint32_t>(i + __builtin_ctzll(changes));
  }
  *last = before != 0;
  return found;
}

inline int64_t short_numbers_one_by_one(const char* text, int64_t length, int64_t* used, int16_t* values) {
  int64_t at = 0, found = 0;
  while (at < length) {
    // No branch, because whether a number has one character or two is nearly random.
    const uint32_t low = static_cast<uint32_t>(static_cast<unsigned char>(text[at])) - 48;
    const uint32_t high = at + 1 < length ? static_cast<uint32_t>(static_cast<unsigned char>(text[at + 1])) - 48 : 99;
    const uint32_t more = low >> 5 & 1;
    if (low > 63 || (more & static_cast<uint32_t>(high > 31)) != 0) break;
    const uint32_t bits = (low & 31) | ((high & 31) << 5 & (0 - more));
    const uint32_t unused = 27 - 5 * more;
    values[found++] = static_cast<int16_t>(static_cast<int32_t>(bits << unused) >> unused);
    at += 1 + more;
  }
  *used = at;
  return found;
}

// Sets bits begin..end of a column's words; there is at least one.
inline void fill_bits(uint64_t* column, int64_t begin, int64_t end) {
  const int64_t first = begin >> 6, last = (end - 1) >> 6;
  const uint64_t from = ~uint64_t{0} << (begin & 63), to = ~uint64_t{0} >> (63 - ((end - 1) & 63));
  // No branch, because whether a run ends in the word where it starts is nearly random.
  const uint64_t apart = first == last ? 0 : ~uint64_t{0};
  column[first] |= from & (to | apart);
  for (int64_t i = first + 1; i < last; ++i) column[i] = ~uint64_t{0};
  column[last] |= to & (from | apart);
}

inline void fill_columns_one_by_one(const ColumnRuns& runs, const ColumnBits& bits) {
  for (int64_t i = 0; i < runs.n; ++i)
    fill_bits(bits.words + (runs.x[i] - bits.x) * bits.stride, runs.begin[i] - bits.y, runs.end[i] - bits.y);
}

inline bool add_differences_one_by_one(const int16_t* values, int64_t n, uint32_t max_count, uint32_t* counts,
                                       int64_t* total) {
  uint32_t before = counts[-2], last = counts[-1], largest = 0;
  int64_t sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t count = before + static_cast<uint32_t>(values[i]);  // one below 0 is beyond max_count, too
    before = last;
    last = counts[i] = count;
    largest = count > largest ? count : largest;
    sum += count;
  }
  *total += sum;
  return largest <= max_count;
}

inline void add_run(ColumnRuns& runs, int64_t x, int64_t begin, int64_t end) {
  runs.x[runs.n] = static_cast<int32_t>(x);
  runs.begin[runs.n] = static_cast<int32_t>(begin);
  runs.end[runs.n++] = static_cast<int32_t>(end);
  runs.pixels += end - begin;
  runs.top = begin < runs.top ? static_cast<int32_t>(begin) : runs.top;
  runs.bottom = end > runs.bottom ? static_cast<int32_t>(end) : runs.bottom;
}

// Adds a run of `left` pixels that begins at (x, y), and moves (x, y) to its end.
inline void add_long_run(ColumnRuns& runs, int64_t& x, int64_t& y, int64_t left, int64_t height) {
  for (; y + left > height; y = 0, ++x) {
    add_run(runs, x, y, height);
    left -= height - y;
  }
  if (left > 0) add_run(runs, x, y, y + left);
  y += left;
}

inline void column_runs_one_by_one(const uint32_t* counts, int64_t n, int64_t height, ColumnRuns& runs) {
  ColumnRuns found = runs;  // a copy, which stays in registers
  int64_t x = 0, y = 0;
  for (int64_t i = 0; i + 1 < n; i += 2) {
    y += counts[i];
    // Most gaps end in the next column. They need no 64-bit division, which costs more than all else in this loop.
    if (y >= 2 * height) {
      x += y / height;
      y %= height;
    } else if (y >= height) {
      ++x;
      y -= height;
    }
    add_long_run(found, x, y, counts[i + 1], height);
  }
  runs = found;
}

inline void stream_lines_by_16(uint8_t* to, const uint8_t* from, int64_t lines) {
#if defined(__SSE2__)
  for (int64_t i = 0; i < 64 * lines; i += 16) {
    const __m128i value =
        from == nullptr ? _mm_setzero_si128() : _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + i), value);
  }
#else
  if (lines > 0 && from == nullptr) __builtin_memset(to, 0, static_cast<size_t>(64 * lines));
  if (lines > 0 && from != nullptr) __builtin_memcpy(to, from, static_cast<size_t>(64 * lines));
#endif
}

inline uint64_t pack_bytes(const uint8_t* bytes, int64_t n) {
  uint64_t word = 0;
  for (int64_t i = 0; i < n; ++i) word |= static_cast<uint64_t>(bytes[i] != 0) << i;
  return word;
}

inline uint8_t or_bytes(const uint8_t* bytes, int64_t n) {
  uint8_t all = 0;
  for (int64_t i = 0; i < n; ++i) all |= bytes[i];
  return all;
}

inline void unpack_bits(uint64_t word, int64_t n, uint8_t* bytes) {
  for (int64_t i = 0; i < n; ++i) bytes[i] = static_cast<uint8_t>(word >> i & 1);
}

inline Counts dense_counts_tail(const uint8_t* a, const uint8_t* b, const uint8_t* ignore, int64_t n) {
  Counts counts;
  for (int64_t i = 0; i < n; ++i) {
    const int kept = ignore == nullptr || ignore[i] == 0;
    counts.intersection += kept & (a[i] != 0) & (b[i] != 0);
    counts.uni += kept & ((a[i] | b[i]) != 0);
    counts.bytes |= static_cast<uint8_t>(a[i] | b[i] | (ignore == nullptr ? 0 : ignore[i]));
  }
  return counts;
}

}  // namespace
}  // namespace dpad
