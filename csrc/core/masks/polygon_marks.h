// Marks a polygon's crossings in a window of bits that csrc/simd folds into rows of pixels.
//
// Each edge flips one bit per row (or column) that it crosses; a pixel is inside where an odd number of flips lie
// before it. Flips commute, so edges need no sorting and no active list, and a polygon costs its crossings plus its
// window.
#pragma once

#include <cstdint>
#include <vector>

#include "core/masks/polygons.h"

namespace dpad {

class PolygonMarks {
 public:
  PolygonMarks(int64_t height, int64_t width, PolygonRule rule) : height_(height), width_(width), rule_(rule) {}

  // Marks one object's rings. False where no pixel can be set; else plane(), row() and word() describe the window.
  bool mark(const PolygonBatch& batch, int64_t object);

  FoldPlane plane();
  int64_t row() const { return top_; }
  int64_t word() const { return left_; }
  int64_t rows() const { return bottom_ - top_; }
  int64_t words() const { return right_ - left_; }

 private:
  struct Point {
    int64_t x, y;
  };

  bool set_window(double x1, double y1, double x2, double y2);
  // x may be one past the window's last column, which is where the row ends.
  void flip(int64_t x, int64_t y) { toggles_[at(x, y)] ^= uint64_t{1} << (x & 63); }
  void set(int64_t x, int64_t y) { sets_[at(x, y)] |= uint64_t{1} << (x & 63); }
  size_t at(int64_t x, int64_t y) const {
    return static_cast<size_t>((y - top_) * (right_ - left_) + (x >> 6) - left_);
  }

  void mark_coco(const double* xy, int64_t n);
  void coco_edge(Point a, Point b);
  void coco_flat(Point a, Point b, int64_t first, int64_t last);
  void coco_steep(Point a, Point b, int64_t first, int64_t last);
  void mark_center(const double* xy, int64_t n);
  void mark_opencv(const double* xy, int64_t n);
  void opencv_edge(Point a, Point b);
  bool clip(Point& a, Point& b) const;

  int64_t height_, width_;
  PolygonRule rule_;
  int64_t top_ = 0, bottom_ = 0, left_ = 0, right_ = 0;  // rows and words of the window
  bool inside_ = false;                                  // no vertex of the object lies outside of the image
  bool merged_ = false;                                  // several rings of the coco rule: the union is in sets_
  std::vector<uint64_t> toggles_, sets_;                 // all 0 between objects
};

}  // namespace dpad
