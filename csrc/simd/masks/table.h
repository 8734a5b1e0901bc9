// The loops over mask bits that pay for wide registers.
#pragma once

#include <cstdint>

#include "simd/choose.h"

namespace dpad {

// Pixel x of a row is bit x % 64 of word x / 64; bits past the width are 0.
constexpr int64_t words_for(int64_t pixels) { return (pixels + 63) / 64; }

struct Counts {
  int64_t intersection = 0;
  int64_t uni = 0;
  uint8_t bytes = 0;  // the OR of all that were read
};

// A window of rows x words that a polygon was marked into, always left zero behind.
struct FoldPlane {
  // A set bit flips its pixel and every later one: below it (down) or right of it. Then each row has an even number of
  // them, of which those that lie beyond its last pixel stand in the next row's first bit: flips never need to be told
  // apart by row, and one word follows the last row.
  uint64_t* toggles;
  uint64_t* sets;  // bits set whatever the toggles say; only read when folding right, may be null
  int64_t rows;
  int64_t words;       // per row
  uint64_t last_mask;  // which bits of a row's last word lie inside the image
  bool down;
};

// Where a polygon's edges are marked: the window's bits as in a FoldPlane that folds right, and the image's row and
// word where it begins.
struct EdgePlane {
  uint64_t* toggles;
  uint64_t* sets;
  int64_t words, top, left;
};

// The extent of the bits of a window: `columns`, one row of words that is 0 at first, gets the OR of all rows.
struct Extent {
  uint64_t* columns;
  int64_t area = 0;
  int64_t top = INT64_MAX, bottom = -1;  // first and last row that is not empty
};

// The results of folding a plane: drawn, or counted against truth and never stored.
struct FoldDraw {
  uint64_t* out;  // row 0 of the window
  int64_t stride;
  bool merge;                // OR into out instead of overwriting it
  Extent* extent = nullptr;  // where given, measured on the way
};
struct FoldCount {
  const uint64_t* truth;   // row 0 of the window in the truth
  const uint64_t* ignore;  // null, or the same window of the pixels that count for nothing
  int64_t stride;          // of both
  int64_t area = 0;        // of the polygon, without ignored pixels
  int64_t intersection = 0;
};

// Pixels begin[i]..end[i] of column x[i], at least one each, from left to right and down; `pixels` of them in all. The
// arrays have room for kColumnSlack more.
struct ColumnRuns {
  int32_t *x, *begin, *end;
  int64_t n = 0, pixels = 0;
  int32_t top = INT32_MAX, bottom = 0;  // of all runs
};
// Bits column by column: column `x` first, its pixel `y` in bit 0, `stride` words to a column and kColumnSlack behind
// the last. They come in as zeros; what is behind a column may be written as long as it comes later.
struct ColumnBits {
  int64_t x, y, stride;
  uint64_t* words;
};
constexpr int64_t kColumnSlack = 8;

struct MaskTable {
  SimdLevel level;
  // sum of popcount(a & b) over a window of rows x words.
  int64_t (*and_count)(const uint64_t* a, int64_t stride_a, const uint64_t* b, int64_t stride_b, int64_t rows,
                       int64_t words);
  int64_t (*count)(const uint64_t* a, int64_t words);
  void (*measure)(const uint64_t* words, int64_t rows, int64_t stride, Extent& extent);
  // n bytes of each; a pixel is set where its byte is not 0; ignore may be null.
  Counts (*dense_counts)(const uint8_t* a, const uint8_t* b, const uint8_t* ignore, int64_t n);
  // Bytes that are not 0 to bits, each row from a word of its own on, and what they hold. Returns the OR of all bytes.
  uint8_t (*pack)(const uint8_t* dense, int64_t height, int64_t width, uint64_t* words, Extent& extent);
  // The positions among n bytes whose pixel differs from the one before; *last is the pixel before the first. Returns
  // how many there are (n at most) and leaves the last pixel in *last.
  int64_t (*changes)(const uint8_t* bytes, int64_t n, bool* last, uint32_t* positions);
  // Reads numbers of one or two characters of a compressed RLE string, up to the first that is longer, cut off or not
  // in the alphabet. Returns how many there are and in *used how many characters they take. `values` holds length + 64.
  int64_t (*short_numbers)(const char* text, int64_t length, int64_t* used, int16_t* values);
  // counts[i] = values[i] + counts[i - 2]; counts[-2] and counts[-1] are given. Adds them to *total. False where one of
  // them is not 0..max_count.
  bool (*add_differences)(const int16_t* values, int64_t n, uint32_t max_count, uint32_t* counts, int64_t* total);
  // The set ones among n run lengths, zeros first, cut at the ends of columns of `height` pixels.
  void (*column_runs)(const uint32_t* counts, int64_t n, int64_t height, ColumnRuns& runs);
  // Sets their pixels.
  void (*fill_columns)(const ColumnRuns& runs, const ColumnBits& bits);
  void (*unpack_row)(const uint64_t* words, int64_t width, uint8_t* row);
  // Stores whole cache lines past the caches, copied or, where `from` is null, all 0; `to` begins a line. A fence is
  // the caller's.
  void (*stream_lines)(uint8_t* to, const uint8_t* from, int64_t lines);
  // Marks a ring of n vertices (x, y) by OpenCV's rule. All vertices lie in the window.
  void (*mark_edges)(const double* xy, int64_t n, const EdgePlane& plane);
  void (*fold_draw)(const FoldPlane& plane, const FoldDraw& target);
  void (*fold_count)(const FoldPlane& plane, FoldCount& target);
};

extern const MaskTable kMaskScalar;
#if defined(__x86_64__)
extern const MaskTable kMaskAvx2;
extern const MaskTable kMaskAvx512;
#endif

// The best that choose.h allows.
const MaskTable& mask_table();

}  // namespace dpad
