// Masks as bits: packing, areas and boxes, and intersections of pairs. Python-free and torch-free.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "simd/masks/table.h"

namespace dpad {

// The longest side and the most pixels of a mask. 2^28 pixels, such as 16k x 16k, are 32 MiB as bits, and every count
// fits 32 bits.
constexpr int64_t kMaxSide = 65535;
constexpr int64_t kMaxPixels = int64_t{1} << 28;

// Each thread keeps its scratch from call to call, and frees it when it has grown beyond this (1 MiB).
constexpr size_t kScratchWords = size_t{1} << 17;

inline bool mask_size_fits(int64_t height, int64_t width) {
  return height >= 0 && width >= 0 && height <= kMaxSide && width <= kMaxSide && height * width <= kMaxPixels;
}

// Throws std::invalid_argument for sizes below 0 or beyond the limits; the message begins with `name`.
void check_mask_size(const char* name, int64_t height, int64_t width);

// x2 and y2 one past the last pixel; all zero for an empty mask.
struct PixelBox {
  int64_t x1 = 0, y1 = 0, x2 = 0, y2 = 0;
};

// No branch, because which pairs overlap is nearly random.
inline bool boxes_overlap(const PixelBox& a, const PixelBox& b) {
  return ((std::max(a.x1, b.x1) < std::min(a.x2, b.x2)) & (std::max(a.y1, b.y1) < std::min(a.y2, b.y2))) != 0;
}

// The box of the pixels of an extent, relative to the window's first row and word. A row has `words` words.
PixelBox box_of(const Extent& extent, int64_t words);

// A mask's rows y1..y2 and the words of x1..x2 in them; `words` addresses row y1 at the word of x1. A stored row has
// `stride` words, of which the first is word `origin` of the image's row.
struct MaskView {
  const uint64_t* words;
  int64_t stride;
  int64_t origin;
  PixelBox box;
};

// N masks as bits: words [n, height, words_for(width)], area [n], box [n] (four int64 each).
struct PackedView {
  const uint64_t* words;
  const int64_t* area;
  const PixelBox* box;
  int64_t n, height, width;

  int64_t stride() const { return words_for(width); }
  int64_t mask_words() const { return height * stride(); }
  MaskView view(int64_t i) const;
};

// dense [n, height, width] bytes, not 0 is set; fills words, area and box. Here and below, a function that reads dense
// masks returns the OR of all bytes that it read, which is 0 or 1 where each of them is.
uint8_t pack_masks(const uint8_t* dense, int64_t n, int64_t height, int64_t width, int threads, uint64_t* words,
                   int64_t* area, PixelBox* box);
void unpack_masks(const uint64_t* words, int64_t n, int64_t height, int64_t width, int threads, uint8_t* dense);
// Area and box of one mask's words.
void measure(const uint64_t* words, int64_t height, int64_t width, int64_t* area, PixelBox* box);

// Paired counts of dense masks [n, pixels]; ignore is null, [pixels] (ignore_step 0) or [n, pixels] (ignore_step
// pixels).
uint8_t dense_pair_counts(const uint8_t* a, const uint8_t* b, const uint8_t* ignore, int64_t ignore_step, int64_t n,
                          int64_t pixels, int threads, int64_t* intersection, int64_t* uni);

// The number of pixels that both masks have. Only rows in which their boxes overlap are read.
int64_t intersect(const MaskView& a, const MaskView& b);

// Counts [n, b.n] of dense masks a [n, height, width] with packed ones. Each dense mask is packed into memory that
// stays in the cache, and compared with all of b before the next one is read.
uint8_t dense_matrix_counts(const uint8_t* a, int64_t n, const PackedView& b, int threads, int64_t* intersection,
                            int64_t* uni);

// Paired counts of packed masks, n of each. `ignore` may be null, hold one mask, or n.
void packed_pair_counts(const PackedView& a, const PackedView& b, const PackedView* ignore, int threads,
                        int64_t* intersection, int64_t* uni);
// Counts [a.n, b.n] of every pair. `ignore` may be null, hold one mask, or b.n.
void packed_matrix_counts(const PackedView& a, const PackedView& b, const PackedView* ignore, int threads,
                          int64_t* intersection, int64_t* uni);

// The IoU of counts; `empty` where the union is 0. Every IoU of the package is computed here.
inline double iou_ratio(int64_t intersection, int64_t uni, double empty) {
  return uni == 0 ? empty : static_cast<double>(intersection) / static_cast<double>(uni);
}
void iou_ratios(const int64_t* intersection, const int64_t* uni, int64_t n, double empty, double* out);

// points = x, y, x, y of two set pixels. A pixel's depth is its distance to the nearest pixel that is not set; pixels
// outside of the image are not set. The first point is the deepest pixel. The second is the deepest of the pixels that
// are farther from the first one than their median; where there are none, it is the first again. Of equally deep pixels
// the upper, then the left one counts. Returns false and writes nothing for an empty mask.
bool inscribed_points(const uint8_t* mask, int64_t height, int64_t width, int64_t* points);

}  // namespace dpad
