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

// A window of rows x words that a polygon was marked into. Folding it sets all marks back to 0.
struct FoldPlane {
  // A set bit flips its pixel and all later ones: those below it (down) or right of it. To the right, each row has an
  // even number of flips. A flip behind the row's last pixel is in the first bit of the next row, so that all rows fold
  // as one long row; one word follows the last row for it.
  uint64_t* toggles;
  uint64_t* sets;  // pixels that are set whatever the toggles say; used only to the right, may be null
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

// Run i is the pixels begin[i]..end[i] of column x[i], at least one. Runs are sorted by column, then downwards;
// `pixels` is the sum of their pixels. The arrays have room for kColumnSlack more runs.
struct ColumnRuns {
  int32_t *x, *begin, *end;
  int64_t n = 0, pixels = 0;
  int32_t top = INT32_MAX, bottom = 0;  // of all runs
};
// Bits column by column. Column `x` is the first, its pixel `y` is bit 0, and a column has `stride` words; kColumnSlack
// words follow the last column. All are 0 at first. Writing a column may overwrite the words of later columns, which
// are written after it.
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
  // The runs of set pixels among n run lengths that begin with unset ones, cut at the ends of columns of `height`.
  void (*column_runs)(const uint32_t* counts, int64_t n, int64_t height, ColumnRuns& runs);
  // Sets the pixels of runs.
  void (*fill_columns)(const ColumnRuns& runs, const ColumnBits& bits);
  void (*unpack_row)(const uint64_t* words, int64_t width, uint8_t* row);
  // Stores whole cache lines past the caches: copies of `from`, or zeros where `from` is null. `to` begins a line. The
  // caller fences.
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

// The best table that choose.h allows.
const MaskTable& mask_table();

}  // namespace dpad
