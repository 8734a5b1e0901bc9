// Masks as bits: packing, areas and boxes, and intersections of pairs. Python-free and torch-free.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "simd/masks/table.h"

namespace dpad {

// The longest side and the most pixels of a mask: 16k x 16k pixels are 32 MiB as bits. They keep every count in 32
// bits.
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

// No branch: which pairs overlap is as good as random.
inline bool boxes_overlap(const PixelBox& a, const PixelBox& b) {
  return ((std::max(a.x1, b.x1) < std::min(a.x2, b.x2)) & (std::max(a.y1, b.y1) < std::min(a.y2, b.y2))) != 0;
}

// The box of the measured pixels, in a window of `words` words a row; counted from the window's first row and word.
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

// The pixels that both masks have; nothing is read outside the meeting of their boxes.
int64_t intersect(const MaskView& a, const MaskView& b);

// Counts [n, b.n] of dense masks a [n, height, width] with packed ones: each is packed into a few pages that stay in
// cache, and compared with all of b before the next is read.
uint8_t dense_matrix_counts(const uint8_t* a, int64_t n, const PackedView& b, int threads, int64_t* intersection,
                            int64_t* uni);

// Paired counts of packed masks, n of each. `ignore` may be null, hold one mask, or n.
void packed_pair_counts(const PackedView& a, const PackedView& b, const PackedView* ignore, int threads,
                        int64_t* intersection, int64_t* uni);
// Counts [a.n, b.n] of every pair. `ignore` may be null, hold one mask, or b.n.
void packed_matrix_counts(const PackedView& a, const PackedView& b, const PackedView* ignore, int threads,
                          int64_t* intersection, int64_t* uni);

// The one way from counts to an IoU: `empty` where the union is 0.
inline double iou_ratio(int64_t intersection, int64_t uni, double empty) {
  return uni == 0 ? empty : static_cast<double>(intersection) / static_cast<double>(uni);
}
void iou_ratios(const int64_t* intersection, const int64_t* uni, int64_t n, double empty, double* out);

// points = x, y, x, y: the set pixel that is farthest from the nearest one that is not, beyond the image included; and
// of the set pixels that are farther from it than their median, the one that is. Ties go to the upper, then the left
// one; where there is no second, it is the first again. False, and nothing written, for an empty mask.
bool inscribed_points(const uint8_t* mask, int64_t height, int64_t width, int64_t* points);

}  // namespace dpad
