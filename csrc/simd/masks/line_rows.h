// OpenCV's lines, row by row. In an unnamed namespace and without inline functions of the standard library, as
// simd/masks/shared_inl.h says.
#pragma once

#include <cstdint>

namespace dpad {
namespace {

// Sets the pixels left..right of a row; word 0 of the image's row would be words[row].
inline void set_run(uint64_t* words, int64_t row, int64_t left, int64_t right) {
  const uint64_t from = ~uint64_t{0} << (left & 63), to = ~uint64_t{0} >> (~right & 63);
  const int64_t last = row + (right >> 6);
  int64_t word = row + (left >> 6);
  if (word == last) {
    words[word] |= from & to;
    return;
  }
  words[word] |= from;
  while (++word < last) words[word] = ~uint64_t{0};
  words[last] |= to;
}

// Bresenham's line as cv::LineIterator steps from its left end: after i steps along the longer side, the other
// coordinate has moved by i * short / long, rounded half down. So the line is at x = k dx / dy in row k from the left
// end. Where the line is steep, the row has the pixel nearest to x; where it is flat, the row has the pixels less than
// half of dx / dy away from x. All is in fixed point. Every limit is a whole multiple of 1 / (2 dy), so a quarter of
// 1 / dy is added or subtracted to be on the right side of it. Coordinates are 0 to 65535.
class LineRows {
 public:
  // A line from (x1, y), its upper end, to (x2, y + rows).
  LineRows(int64_t x1, int64_t x2, int64_t rows) : first_(x1 < x2 ? x1 : x2), last_(x1 < x2 ? x2 : x1) {
    const int64_t dx = last_ - first_;
    const double inverse = kOne / static_cast<double>(rows > 1 ? rows : 1);
    const auto slope = static_cast<int64_t>(static_cast<double>(dx) * inverse);
    const auto quarter = static_cast<int64_t>(inverse * .25);
    const int64_t half = rows == 0 ? (dx + 1) * kWhole : slope >> 1;
    const int64_t start = first_ * kWhole + (x1 > x2 ? rows * slope : 0);
    step_ = x1 > x2 ? -slope : slope;
    right_ = start + (rows > dx ? kWhole / 2 - quarter : half + quarter);
    left_ = rows > dx ? right_ : start + kWhole - half + quarter;
  }

  // Sets the next row's pixels; word 0 of the image's row would be words[row].
  void next(uint64_t* words, int64_t row) {
    int64_t left = left_ >> kBits, right = right_ >> kBits;
    left = left < first_ ? first_ : left;
    right = right > last_ ? last_ : right;
    left_ += step_;
    right_ += step_;
    set_run(words, row, left, right);
  }

  static constexpr int kBits = 40;  // fractional

 private:
  static constexpr int64_t kWhole = int64_t{1} << kBits;
  static constexpr double kOne = static_cast<double>(kWhole);
  const int64_t first_, last_;   // of the line
  int64_t left_, right_, step_;  // limits in the next row, and their step from row to row
};

}  // namespace
}  // namespace dpad
