// The marks of one edge of a polygon in a band of rows, by each rule of dpad_fast.ops.rasterize_polygons. They are in
// closed form, so that any lane can compute any crossing. csrc/core/masks/polygon_marks.cpp steps along the edges
// instead, and names the rules' sources. tests/csrc compares the two pixel by pixel.
#pragma once

#include <cmath>

#include "cuda/block.h"

namespace dpad::gpu {

// Rows top..bottom of a mask as bits, `pitch` words of 32 bits a row. A toggle flips its pixel and all later ones,
// below (coco) or right of it. A pixel in `sets` is set whatever the toggles say.
struct Band {
  uint32_t *toggles, *sets;
  int32_t pitch, width, top, bottom;

  DPAD_HD void flip(int32_t x, int32_t y) const { atomic_flip(toggles + at(x, y), 1u << (x & 31)); }
  DPAD_HD void set(int32_t x, int32_t y) const { atomic_set(sets + at(x, y), 1u << (x & 31)); }
  DPAD_HD int32_t at(int32_t x, int32_t y) const { return (y - top) * pitch + (x >> 5); }
};

struct Vertex {
  double x, y;
};

template <typename T>
struct PointOf {
  T x, y;
};
using Point = PointOf<int64_t>;
using FinePoint = PointOf<int32_t>;  // coco's, up to 5e7

// The lanes that share an edge: this one, and how many.
struct Lanes {
  int own, count;
};

template <typename T>
DPAD_HD void swap(T& a, T& b) {
  const T c = a;
  a = b, b = c;
}

// A whole number within low..high from a value that may lie far outside of it.
DPAD_HD int32_t clamped_floor(double value, int32_t low, int32_t high) {
  if (!(value > static_cast<double>(low))) return low;
  return value < static_cast<double>(high) ? static_cast<int32_t>(value) : high;
}

// --- coco ---

// The row in which an edge crosses the middle of pixel column k: between columns 5 k + 2 and 5 k + 3 of a grid that is
// five times finer. Points are in the order of the longer axis.
struct CocoFlat {
  int32_t x;
  double y, slope;

  DPAD_HD CocoFlat(const FinePoint& a, const FinePoint& b)
      : x(a.x), y(static_cast<double>(a.y)), slope(static_cast<double>(b.y - a.y) / static_cast<double>(b.x - a.x)) {}

  DPAD_HD int32_t row(int32_t k) const {
    const int32_t t = 5 * k + 2 - x + (slope < 0);  // the upper one of the two points
    const int32_t v = static_cast<int32_t>(y + slope * static_cast<double>(t) + .5);
    return (maximum(v, 0) + 2) / 5;
  }
};

struct CocoSteep {
  int32_t y;
  double x, slope, inverse;
  bool right;

  DPAD_HD CocoSteep(const FinePoint& a, const FinePoint& b) : y(a.y), x(static_cast<double>(a.x)), right(b.x > a.x) {
    const double steps = static_cast<double>(b.y - a.y), run = static_cast<double>(b.x - a.x);
    slope = run / steps, inverse = steps / run;
  }

  DPAD_HD int32_t row(int32_t k) const {
    const double edge = static_cast<double>(5 * k + 3);
    // t becomes the first step whose rounded column lies beyond the crossing. The first guess is off by one at most.
    const auto beyond = [&](int32_t t) { return (x + slope * static_cast<double>(t) + .5 >= edge) == right; };
    int32_t t = static_cast<int32_t>((edge - .5 - x) * inverse);
    while (t > 1 && beyond(t - 1)) --t;
    while (!beyond(t)) ++t;
    return (maximum(y + t - 1, 0) + 2) / 5;
  }
};

// A crossing above the band toggles its whole column of the band.
template <typename Edge>
DPAD_HD void flip_columns(const Band& band, const Edge& edge, int32_t first, int32_t last, const Lanes& lanes) {
  for (int32_t k = first + lanes.own; k <= last; k += lanes.count) {
    const int32_t y = edge.row(k);
    if (y < band.bottom) band.flip(k, maximum(y, band.top));
  }
}

DPAD_HD FinePoint coco_point(const Vertex& v) {
  return {static_cast<int32_t>(5 * v.x + .5), static_cast<int32_t>(5 * v.y + .5)};
}

DPAD_HD void mark_coco_edge(const Band& band, const Vertex& from, const Vertex& to, const Lanes& lanes) {
  FinePoint a = coco_point(from), b = coco_point(to);
  const int32_t low = minimum(a.x, b.x), high = maximum(a.x, b.x);
  if (high < 3 || low == high) return;
  const int32_t first = low <= 2 ? 0 : (low + 2) / 5, last = minimum((high - 3) / 5, band.width - 1);
  const bool flat = high - low >= (a.y < b.y ? b.y - a.y : a.y - b.y);
  if (flat ? a.x > b.x : a.y > b.y) swap(a, b);
  if (flat)
    flip_columns(band, CocoFlat(a, b), first, last, lanes);
  else
    flip_columns(band, CocoSteep(a, b), first, last, lanes);
}

// --- center ---

DPAD_HD void mark_center_edge(const Band& band, Vertex a, Vertex b, const Lanes& lanes) {
  if (a.y > b.y) swap(a, b);
  if (a.y == b.y) return;
  const double slope = (b.x - a.x) / (b.y - a.y);
  const int32_t first = clamped_floor(ceil(a.y - .5), band.top, band.bottom);
  const int32_t last = clamped_floor(ceil(b.y - .5), band.top, band.bottom);
  for (int32_t y = first + lanes.own; y < last; y += lanes.count) {
    const double x = ceil(a.x + (static_cast<double>(y) + .5 - a.y) * slope - .5);
    if (x < static_cast<double>(band.width)) band.flip(x > 0 ? static_cast<int32_t>(x) : 0, y);
  }
}

// --- opencv ---

constexpr int kShift = 16;  // fractional bits of OpenCV's edge positions
constexpr int64_t kOne = int64_t{1} << kShift;

DPAD_HD int side_of(const Point& p, int64_t right) { return (p.x < 0 ? 1 : 0) | (p.x > right ? 2 : 0); }

DPAD_HD int code_of(const Point& p, int64_t right, int64_t bottom) {
  return side_of(p, right) | (p.y < 0 ? 4 : 0) | (p.y > bottom ? 8 : 0);
}

// cv::clipLine: false where the line misses the image; the points may have moved even then.
DPAD_HD bool clip(Point& a, Point& b, int64_t width, int64_t height) {
  const int64_t right = width - 1, bottom = height - 1;
  int code_a = code_of(a, right, bottom), code_b = code_of(b, right, bottom);
  if ((code_a & code_b) != 0 || (code_a | code_b) == 0) return (code_a | code_b) == 0;
  const auto to_row = [&](Point& p, int& code) {
    if ((code & 12) == 0) return;
    const int64_t edge = code < 8 ? 0 : bottom;
    p.x += (edge - p.y) * (b.x - a.x) / (b.y - a.y);
    p.y = edge;
    code = side_of(p, right);
  };
  to_row(a, code_a), to_row(b, code_b);
  if ((code_a & code_b) != 0 || (code_a | code_b) == 0) return (code_a | code_b) == 0;
  const auto to_column = [&](Point& p, int& code) {
    if (code == 0) return;
    const int64_t edge = code == 1 ? 0 : right;
    p.y += (edge - p.x) * (b.y - a.y) / (b.x - a.x);
    p.x = edge;
    code = 0;
  };
  to_column(a, code_a), to_column(b, code_b);
  return true;
}

// Bresenham from left to right: after i steps along the longer side `high`, the other coordinate has moved by
// i * low / high, rounded half down. Both points lie in the image, so products of two sides fit 32 bits.
DPAD_HD uint32_t moved(uint32_t i, uint32_t low, uint32_t high) {
  if (high == 0) return 0;
  const uint32_t quotient = i * low / high, remainder = i * low - quotient * high;
  return quotient + (remainder > high / 2);
}

// The first i for which moved(i, low, high) is `by` or more, for 0 < by <= low.
DPAD_HD uint32_t step_of(uint32_t by, uint32_t low, uint32_t high) {
  const uint32_t far = high * by - (high - 1) / 2;
  return far / low + (far % low != 0);
}

DPAD_HD void mark_opencv_line(const Band& band, Point a, Point b, const Lanes& lanes) {
  if (a.x > b.x) swap(a, b);
  const int32_t x = static_cast<int32_t>(a.x), y = static_cast<int32_t>(a.y), dx = static_cast<int32_t>(b.x) - x;
  const int32_t fall = static_cast<int32_t>(b.y) - y, dy = fall < 0 ? -fall : fall, down = fall < 0 ? -1 : 1;
  // How far the line has moved in y where it enters the band, and where it has left it.
  const int32_t enter = down > 0 ? band.top - y : y - band.bottom + 1;
  const int32_t leave = down > 0 ? band.bottom - y : y - band.top + 1;
  if (leave <= 0 || enter > dy) return;
  if (dy > dx) {
    const int32_t last = minimum(leave - 1, dy);
    for (int32_t i = maximum(enter, 0) + lanes.own; i <= last; i += lanes.count)
      band.set(x + static_cast<int32_t>(moved(i, dx, dy)), y + down * i);
    return;
  }
  const int32_t first = enter <= 0 ? 0 : static_cast<int32_t>(step_of(enter, dy, dx));
  const int32_t last = leave > dy ? dx : static_cast<int32_t>(step_of(leave, dy, dx)) - 1;
  for (int32_t i = first + lanes.own; i <= last; i += lanes.count)
    band.set(x + i, y + down * static_cast<int32_t>(moved(i, dy, dx)));
}

DPAD_HD void mark_opencv_edge(const Band& band, int32_t height, const Vertex& from, const Vertex& to,
                              const Lanes& lanes) {
  const Point a{static_cast<int64_t>(from.x), static_cast<int64_t>(from.y)};
  const Point b{static_cast<int64_t>(to.x), static_cast<int64_t>(to.y)};
  Point p = a, q = b;
  if (clip(p, q, band.width, height)) mark_opencv_line(band, p, q, lanes);
  if (a.y == b.y) return;
  if (p.y == q.y) p.y = a.y, q.y = b.y;
  const int64_t slope = (q.x - p.x) * kOne / (q.y - p.y);
  const Point start = a.y < b.y ? p : q;
  const int32_t first = static_cast<int32_t>(clamped<int64_t>(minimum(a.y, b.y), band.top, band.bottom));
  const int32_t last = static_cast<int32_t>(clamped<int64_t>(maximum(a.y, b.y), band.top, band.bottom));
  for (int32_t y = first + lanes.own; y < last; y += lanes.count) {
    const int64_t x = start.x * kOne + (y - start.y) * slope, floor = x >> kShift;
    if (floor >= band.width) continue;
    const int32_t pixel = floor < 0 ? -1 : static_cast<int32_t>(floor);
    if (pixel >= 0 && (x & (kOne - 1)) == 0) band.set(pixel, y);
    if (pixel + 1 < band.width) band.flip(pixel + 1, y);
  }
}

}  // namespace dpad::gpu
