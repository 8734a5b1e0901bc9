#include "core/masks/polygon_marks.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "simd/masks/line_rows.h"

namespace dpad {

namespace {

constexpr int kShift = 16;  // fractional bits of OpenCV's edge positions
constexpr int64_t kOne = int64_t{1} << kShift;

int64_t clamp(double value, int64_t low, int64_t high) {
  if (!(value > static_cast<double>(low))) return low;
  return value < static_cast<double>(high) ? static_cast<int64_t>(value) : high;
}

}  // namespace

bool PolygonMarks::set_window(double x1, double y1, double x2, double y2) {
  top_ = clamp(std::floor(y1), 0, height_);
  bottom_ = clamp(std::floor(y2) + 1, 0, height_);
  const int64_t right = clamp(std::floor(x2) + 1, 0, width_);
  left_ = clamp(std::floor(x1), 0, width_) / 64;
  right_ = words_for(right);
  if (top_ >= bottom_ || left_ >= right_) return false;
  const size_t size = static_cast<size_t>(rows() * words() + 1);  // one more word for flips at the end of the last row
  for (auto* marks : {&toggles_, &sets_}) {
    if (marks->size() > kScratchWords && size < kScratchWords) std::vector<uint64_t>().swap(*marks);
    if (marks->size() < size) marks->resize(size, 0);
  }
  return true;
}

FoldPlane PolygonMarks::plane() {
  const uint64_t last = (right_ * 64 > width_) ? (uint64_t{1} << (width_ & 63)) - 1 : ~uint64_t{0};
  if (merged_) return {toggles_.data(), sets_.data(), rows(), words(), last, false};
  const bool down = rule_ == PolygonRule::coco;
  uint64_t* sets = rule_ == PolygonRule::opencv ? sets_.data() : nullptr;
  return {toggles_.data(), sets, rows(), words(), last, down};
}

bool PolygonMarks::mark(const PolygonBatch& batch, int64_t object) {
  const int64_t first = batch.object_starts[object], end = batch.object_starts[object + 1];
  if (first == end) return false;
  const double* begin = batch.vertices + 2 * batch.ring_starts[first];
  const double* stop = batch.vertices + 2 * batch.ring_starts[end];
  double x1 = begin[0], x2 = x1, y1 = begin[1], y2 = y1;
  for (const double* p = begin; p < stop; p += 2) {
    x1 = std::min(x1, p[0]), x2 = std::max(x2, p[0]);
    y1 = std::min(y1, p[1]), y2 = std::max(y2, p[1]);
  }
  inside_ = x1 >= 0 && y1 >= 0 && x2 < static_cast<double>(width_) &&
            y2 < static_cast<double>(std::min<int64_t>(height_, 32768));
  // OpenCV continues a clipped edge from the point where it enters the image, so it may leave the box of its vertices.
  if (rule_ == PolygonRule::opencv && !inside_) {
    x1 = 0;
    x2 = static_cast<double>(width_);
  }
  // A margin of one pixel on all sides covers each rule's rounding, and the flip that ends a row.
  if (!set_window(x1 - 1, y1 - 1, x2 + 2, y2 + 1)) return false;
  merged_ = false;
  for (int64_t ring = first; ring < end; ++ring) {
    const double* xy = batch.vertices + 2 * batch.ring_starts[ring];
    const int64_t n = batch.ring_starts[ring + 1] - batch.ring_starts[ring];
    if (rule_ == PolygonRule::center) mark_center(xy, n);
    if (rule_ == PolygonRule::opencv) mark_opencv(xy, n);
    if (rule_ != PolygonRule::coco) continue;
    mark_coco(xy, n);
    if (end - first == 1) continue;
    // COCO joins rings by union. So each ring is drawn into sets_, and the last fold, which has no flips, gives sets_.
    mask_table().fold_draw({toggles_.data(), nullptr, rows(), words(), ~uint64_t{0}, true},
                           {sets_.data(), words(), true});
    merged_ = true;
  }
  return true;
}

// pycocotools' rleFrPoly. Vertices lie on a grid that is five times finer, rounded half up. Where the outline steps
// from column 5k + 2 to 5k + 3 of that grid, it crosses the middle of pixel column k, at the upper of the step's two
// points.
void PolygonMarks::mark_coco(const double* xy, int64_t n) {
  const auto vertex = [&](int64_t i) {
    return Point{static_cast<int>(5 * xy[2 * i] + .5), static_cast<int>(5 * xy[2 * i + 1] + .5)};
  };
  const Point start = vertex(0);
  Point from = start;
  for (int64_t i = 1; i < n; ++i) {
    const Point to = vertex(i);
    coco_edge(from, to);
    from = to;
  }
  coco_edge(from, start);
}

void PolygonMarks::coco_edge(Point a, Point b) {
  const int64_t low = std::min(a.x, b.x), high = std::max(a.x, b.x);
  if (high < 3 || low == high) return;
  const int64_t first = low <= 2 ? 0 : (low + 2) / 5;
  const int64_t last = std::min((high - 3) / 5, width_ - 1);
  if (first > last) return;
  const bool flat = high - low >= std::abs(a.y - b.y);
  if (flat ? a.x > b.x : a.y > b.y) std::swap(a, b);
  if (flat)
    coco_flat(a, b, first, last);
  else
    coco_steep(a, b, first, last);
}

void PolygonMarks::coco_flat(Point a, Point b, int64_t first, int64_t last) {
  const double slope = static_cast<double>(b.y - a.y) / static_cast<double>(b.x - a.x);
  const double start = static_cast<double>(a.y);
  int64_t t = 5 * first + 2 - a.x + (slope < 0);  // the upper one of the two points
  for (int64_t k = first; k <= last; ++k, t += 5) {
    const int v = static_cast<int>(start + slope * static_cast<double>(t) + .5);
    const int64_t y = (std::max(v, 0) + 2) / 5;
    if (y < bottom_) flip(k, y);
  }
}

void PolygonMarks::coco_steep(Point a, Point b, int64_t first, int64_t last) {
  const double steps = static_cast<double>(b.y - a.y), start = static_cast<double>(a.x);
  const double slope = static_cast<double>(b.x - a.x) / steps, inverse = steps / static_cast<double>(b.x - a.x);
  const bool right = b.x > a.x;
  for (int64_t k = first; k <= last; ++k) {
    const double edge = static_cast<double>(5 * k + 3);
    // t becomes the first step whose rounded column lies beyond the crossing. The first guess is off by one at most.
    const auto beyond = [&](int64_t t) { return (start + slope * static_cast<double>(t) + .5 >= edge) == right; };
    int64_t t = static_cast<int64_t>((edge - .5 - start) * inverse);
    while (t > 1 && beyond(t - 1)) --t;
    while (!beyond(t)) ++t;
    const int64_t v = a.y + t - 1;
    const int64_t y = (std::max<int64_t>(v, 0) + 2) / 5;
    if (y < bottom_) flip(k, y);
  }
}

// A pixel is inside where its centre has an odd number of edges at or left of it; an edge owns its upper end.
void PolygonMarks::mark_center(const double* xy, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const double *a = xy + 2 * i, *b = xy + 2 * (i + 1 < n ? i + 1 : 0);
    if (a[1] > b[1]) std::swap(a, b);
    if (a[1] == b[1]) continue;
    const double slope = (b[0] - a[0]) / (b[1] - a[1]);
    const int64_t last = clamp(std::ceil(b[1] - .5), 0, height_);
    for (int64_t y = clamp(std::ceil(a[1] - .5), 0, height_); y < last; ++y) {
      const double x = std::ceil(a[0] + (static_cast<double>(y) + .5 - a[1]) * slope - .5);
      flip(clamp(x, left_ * 64, right_ * 64), y);
    }
  }
}

void PolygonMarks::mark_opencv(const double* xy, int64_t n) {
  if (inside_) return mask_table().mark_edges(xy, n, {toggles_.data(), sets_.data(), words(), top_, left_});
  const auto vertex = [&](int64_t i) {
    return Point{static_cast<int64_t>(xy[2 * i]), static_cast<int64_t>(xy[2 * i + 1])};
  };
  Point from = vertex(n - 1);
  for (int64_t i = 0; i < n; ++i) {
    const Point to = vertex(i);
    opencv_edge(from, to);
    from = to;
  }
}

// cv::fillPoly draws the outline as lines. Then it sorts the positions of a row's edges, and fills from the ceil of one
// to the floor of the next. The same without sorting: a pixel is filled where an odd number of positions lie left of
// it, or where one lies exactly on it.
void PolygonMarks::opencv_edge(Point a, Point b) {
  Point p = a, q = b;
  if (clip(p, q)) {
    const Point &upper = p.y < q.y ? p : q, &lower = p.y < q.y ? q : p;
    LineRows line(upper.x, lower.x, lower.y - upper.y);
    for (int64_t y = upper.y; y <= lower.y; ++y) line.next(sets_.data(), (y - top_) * words() - left_);
  }
  if (a.y == b.y) return;
  if (p.y == q.y) p.y = a.y, q.y = b.y;
  const int64_t slope = (q.x - p.x) * kOne / (q.y - p.y);
  const Point& start = a.y < b.y ? p : q;
  const int64_t top = std::max<int64_t>(std::min(a.y, b.y), 0), bottom = std::min(std::max(a.y, b.y), height_);
  int64_t x = start.x * kOne + (top - start.y) * slope;
  for (int64_t y = top; y < bottom; ++y, x += slope) {
    const int64_t floor = x >> kShift;
    if (floor >= 0 && floor < width_ && (x & (kOne - 1)) == 0) set(floor, y);
    flip(std::clamp<int64_t>(floor + 1, 0, right_ * 64), y);
  }
}

// cv::clipLine, in whole pixels: it clips at the top and bottom first, then at the sides, and each division rounds
// towards zero. Points may move even where the line misses the image, and opencv_edge depends on that.
bool PolygonMarks::clip(Point& a, Point& b) const {
  const int64_t right = width_ - 1, bottom = height_ - 1;
  const auto side = [&](const Point& p) { return (p.x < 0 ? 1 : 0) | (p.x > right ? 2 : 0); };
  const auto code = [&](const Point& p) { return side(p) | (p.y < 0 ? 4 : 0) | (p.y > bottom ? 8 : 0); };
  int code_a = code(a), code_b = code(b);
  if ((code_a & code_b) != 0 || (code_a | code_b) == 0) return (code_a | code_b) == 0;
  for (auto [p, c] : {std::pair(&a, &code_a), std::pair(&b, &code_b)}) {
    if ((*c & 12) == 0) continue;
    const int64_t edge = *c < 8 ? 0 : bottom;
    p->x += (edge - p->y) * (b.x - a.x) / (b.y - a.y);
    p->y = edge;
    *c = side(*p);
  }
  if ((code_a & code_b) != 0 || (code_a | code_b) == 0) return (code_a | code_b) == 0;
  for (auto [p, c] : {std::pair(&a, &code_a), std::pair(&b, &code_b)}) {
    if (*c == 0) continue;
    const int64_t edge = *c == 1 ? 0 : right;
    p->y += (edge - p->x) * (b.y - a.y) / (b.x - a.x);
    p->x = edge;
    *c = 0;
  }
  return true;
}

}  // namespace dpad
