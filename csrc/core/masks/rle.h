// COCO's run-length encoding: runs of 0s and 1s in turn down the columns, and the printable string that holds them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/masks/masks.h"

namespace dpad {

// Run lengths of one mask [height, width]; they add up to height * width.
struct Rle {
  int64_t height = 0, width = 0;
  std::vector<uint32_t> counts;
};

// The name of one item of a list in messages; the text is made only when there is an error.
struct ItemName {
  const char* list;
  int64_t index;

  std::string text() const { return std::string(list) + "[" + std::to_string(index) + "]"; }
};

// The runs in a compressed string. Throws std::invalid_argument, its message starting with `name`, where a character
// is outside the alphabet, a number does not end or is no count, or the runs do not add up to height * width.
Rle rle_from_string(const ItemName& name, const char* text, size_t length, int64_t height, int64_t width);
// The same checks for run lengths that are given as numbers.
Rle rle_from_counts(const ItemName& name, const int64_t* counts, size_t length, int64_t height, int64_t width);
std::string rle_to_string(const Rle& rle);

int64_t rle_area(const Rle& rle);
PixelBox rle_box(const Rle& rle);

// columns [width, height] bytes (column-major pixels), not 0 is set.
Rle rle_from_columns(const uint8_t* columns, int64_t height, int64_t width);
void rle_to_columns(const Rle& rle, uint8_t* columns);

// Union, or intersection, of masks of one size.
Rle rle_merge(const std::vector<Rle>& rles, bool intersect);

// Conversions between runs and bits, without a byte per pixel. `words` [height, words_for(width)] need not be clear.
void rle_to_words(const Rle& rle, uint64_t* words, int64_t* area, PixelBox* box);
Rle rle_from_words(const uint64_t* words, int64_t height, int64_t width, const PixelBox& box);

// The bits of a mask's box, column by column as the runs are. So a run fills a few words, and counting all pairs stays
// in the cache.
struct CompactMask {
  std::vector<uint64_t> words;  // [columns of the box, words of its rows], and kColumnSlack
  int64_t area = 0;
  PixelBox box;

  CompactMask() = default;
  explicit CompactMask(const Rle& rle);
  // The view has x and y exchanged: its rows are columns of the image. Compare it only with views of this kind.
  MaskView view() const;
};

// A mask that others are compared with, and whether it is a crowd.
struct RleTruth {
  CompactMask mask;
  int64_t height = 0, width = 0;
  bool crowd = false;
};

// IoU of one detection with each truth, as pycocotools.mask.iou: a crowd's union is the detection's area, and the IoU
// is -1 where masks of different sizes have boxes that overlap. out[i * step] belongs to truths[i].
void rle_iou(const Rle& detection, const std::vector<RleTruth>& truths, int64_t step, double* out);

}  // namespace dpad
