// The centres of two large inscribed circles of a mask. The distance of a pixel to the nearest pixel outside is at most
// its distance along its row or its column. Only where this bound beats the best pixel so far, the distance itself is
// computed: by looking along the row, or, where that would look at too many pixels, for a whole run at once by the
// lower envelope of parabolas (Felzenszwalb and Huttenlocher, "Distance Transforms of Sampled Functions", 2012). All
// numbers are integers.
#include <cmath>
#include <cstring>

#include "core/masks/masks.h"

namespace dpad {

namespace {

// Columns [begin, end) of a row that are in the mask, between columns that are not. Coordinates here and below count
// from the upper left pixel of the mask's box.
struct Run {
  int64_t begin, end;
};

struct Pixel {
  int64_t x = 0, y = 0;
};

// The envelope costs about so many times as much per pixel as looking along the row.
constexpr int64_t kEnvelopeCost = 16;

// Integer floor(a / b) for b > 0.
int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && a < 0); }

// The floor of the square root; exact, because no side comes near 2^26.
int64_t root(int64_t value) { return static_cast<int64_t>(std::sqrt(static_cast<double>(value))); }

int64_t next_set(const uint8_t* row, int64_t x, int64_t width) {
  uint64_t words[8];
  for (; x + 64 <= width; x += 64) {
    std::memcpy(words, row + x, sizeof words);
    if ((words[0] | words[1] | words[2] | words[3] | words[4] | words[5] | words[6] | words[7]) != 0) break;
  }
  while (x < width && row[x] == 0) ++x;
  return x;
}

class Shape {
 public:
  Shape(const uint8_t* mask, int64_t height, int64_t width, std::vector<int32_t>& memory) : steps_(memory) {
    for (int64_t y = 0; y < height; ++y) {
      const uint8_t* row = mask + y * width;
      for (int64_t x = next_set(row, 0, width); x < width; x = next_set(row, x, width)) {
        const void* end = std::memchr(row + x, 0, static_cast<size_t>(width - x));
        const int64_t stop = end == nullptr ? width : static_cast<const uint8_t*>(end) - row;
        if (runs_.empty()) top_ = y, left_ = x;
        left_ = std::min(left_, x);
        right_ = std::max(right_, stop);
        // Rows between the first and this one that have no run.
        starts_.resize(static_cast<size_t>(y - top_ + 1), runs_.size());
        runs_.push_back({x, stop});
        pixels_ += stop - x;
        x = stop;
      }
    }
    for (Run& run : runs_) run.begin -= left_, run.end -= left_;
    starts_.push_back(runs_.size());
    height_ = static_cast<int64_t>(starts_.size()) - 1;
    if (!empty()) count_steps();
  }

  bool empty() const { return runs_.empty(); }
  Pixel corner() const { return {left_, top_}; }

  // The deepest of the pixels that are farther from `from` than the root of `away`, the upper, then left one of equals;
  // `from` itself where there are none. `away` below 0 stands for all pixels.
  Pixel deepest(const Pixel& from, int64_t away) {
    int64_t largest = 0;
    found_ = from;
    each(from, away, [&](int64_t y, const Run& run, int64_t begin, int64_t end) {
      const int32_t bound = fill_bounds(y, run, begin, end);
      if (bound <= largest) return;
      largest = bound;
      found_ = {begin + (std::find(bounds_.begin(), bounds_.end(), bound) - bounds_.begin()), y};
    });
    // found_ has this depth, so only the first pixel that is as deep or deeper is looked for.
    best_ = along_row(found_.y, found_.x, largest, -1) - 1;
    each(from, away, [&](int64_t y, const Run& run, int64_t begin, int64_t end) { improve(y, run, begin, end); });
    return found_;
  }

  // The lower median of the squared distances of all pixels from `from`.
  int64_t median_away(const Pixel& from) const {
    const int64_t below = (pixels_ - 1) / 2, width = right_ - left_;
    int64_t low = -1, high = height_ * height_ + width * width;
    while (high - low > 1) {
      const int64_t middle = low + (high - low) / 2;
      (within(from, middle) > below ? high : low) = middle;
    }
    return high;
  }

 private:
  int32_t* steps(int64_t y) { return &steps_[static_cast<size_t>(y * stride_ + 1)]; }

  template <typename Visit>
  void for_runs(int64_t y, Visit visit) const {
    for (size_t i = starts_[static_cast<size_t>(y)]; i < starts_[static_cast<size_t>(y) + 1]; ++i) visit(runs_[i]);
  }

  // Computes for each pixel the distance to the nearest pixel outside in its column. Zeros lie around the box: a column
  // on either side and a row below.
  void count_steps() {
    stride_ = right_ - left_ + 2;
    steps_.assign(static_cast<size_t>((height_ + 1) * stride_), 0);
    for (int64_t y = 0; y < height_; ++y) {
      int32_t *here = steps(y), *above = y > 0 ? steps(y - 1) : steps(height_);
      for_runs(y, [&](const Run& run) {
        for (int64_t x = run.begin; x < run.end; ++x) here[x] = above[x] + 1;
      });
    }
    for (int64_t y = height_ - 1; y >= 0; --y) {
      int32_t *here = steps(y), *under = steps(y + 1);
      for_runs(y, [&](const Run& run) {
        for (int64_t x = run.begin; x < run.end; ++x) here[x] = std::min(here[x], under[x] + 1);
      });
    }
  }

  // How many pixels have a squared distance of at most `limit` from `from`.
  int64_t within(const Pixel& from, int64_t limit) const {
    int64_t found = 0;
    for (int64_t y = 0; y < height_; ++y) {
      const int64_t rest = limit - (y - from.y) * (y - from.y);
      if (rest < 0) continue;
      const int64_t reach = root(rest);
      for_runs(y, [&](const Run& run) {
        found += std::max<int64_t>(0, std::min(run.end, from.x + reach + 1) - std::max(run.begin, from.x - reach));
      });
    }
    return found;
  }

  // Visits the pieces of runs that are farther from `from` than the root of `away`, row by row from left to right.
  template <typename Visit>
  void each(const Pixel& from, int64_t away, Visit visit) const {
    for (int64_t y = 0; y < height_; ++y) {
      const int64_t rest = away - (y - from.y) * (y - from.y);
      for_runs(y, [&](const Run& run) {
        if (rest < 0) return visit(y, run, run.begin, run.end);
        const int64_t reach = root(rest);
        const int64_t left = std::min(run.end, from.x - reach), right = std::max(run.begin, from.x + reach + 1);
        if (run.begin < left) visit(y, run, run.begin, left);
        if (right < run.end) visit(y, run, right, run.end);
      });
    }
  }

  // Fills bounds_ with upper bounds of a piece's distances, those along row and column. Returns the largest.
  int32_t fill_bounds(int64_t y, const Run& run, int64_t begin, int64_t end) {
    const auto n = static_cast<int32_t>(end - begin), before = static_cast<int32_t>(begin - run.begin),
               behind = static_cast<int32_t>(run.end - begin);
    if (bounds_.size() < static_cast<size_t>(n)) bounds_.resize(static_cast<size_t>(n));
    const int32_t* column = steps(y) + begin;
    int32_t *bounds = bounds_.data(), largest = 0;
    for (int32_t i = 0; i < n; ++i) {
      bounds[i] = std::min(column[i], std::min(before + i + 1, behind - i));
      largest = std::max(largest, bounds[i]);
    }
    return largest;
  }

  // Looks in a piece of a run for a pixel that is deeper than best_.
  void improve(int64_t y, const Run& run, int64_t begin, int64_t end) {
    int64_t least = root(best_), cost = 0;
    if (fill_bounds(y, run, begin, end) <= least) return;
    for (int64_t x = begin; x < end; ++x) cost += bound_of(x - begin) > least ? bound_of(x - begin) : 0;
    const bool at_once = cost > kEnvelopeCost * (run.end - run.begin);
    if (at_once) envelope(y, run);
    for (int64_t x = begin; x < end; ++x) {
      const int64_t bound = bound_of(x - begin);
      if (bound <= least) continue;
      const int64_t depth = at_once ? squared_[static_cast<size_t>(x - run.begin + 1)] : along_row(y, x, bound, best_);
      if (depth <= best_) continue;
      best_ = depth;
      found_ = {x, y};
      least = root(depth);
    }
  }

  int64_t bound_of(int64_t i) const { return bounds_[static_cast<size_t>(i)]; }

  // The squared distance of a pixel, which is at most bound * bound. Where it is no more than `enough`, the result is
  // any number that is no more.
  int64_t along_row(int64_t y, int64_t x, int64_t bound, int64_t enough) {
    const int32_t* column = steps(y) + x;
    int64_t nearest = bound * bound;
    for (int64_t u = 1; u * u < nearest && nearest > enough; ++u) {
      const int64_t step = std::min(column[-u], column[u]);
      nearest = std::min(nearest, u * u + step * step);
    }
    return nearest;
  }

  // squared_[1 + i] = the squared distance of the run's pixel i: the minimum of (i - q)^2 + steps[q]^2 over all columns
  // q of the run, and over the column before and the one behind it, which are outside.
  void envelope(int64_t y, const Run& run) {
    const int32_t* column = steps(y) + run.begin - 1;
    const int64_t width = run.end - run.begin + 2;
    for (auto* values : {&sites_, &firsts_, &squared_})
      if (values->size() < static_cast<size_t>(width)) values->resize(static_cast<size_t>(width));
    int64_t *sites = sites_.data(), *firsts = firsts_.data(), top = 0;
    const auto height = [&](int64_t q) { return int64_t{column[q]} * column[q] + q * q; };
    sites[0] = firsts[0] = 0;
    for (int64_t q = 1; q < width; ++q) {
      // From `first` on, column q is strictly nearer than the envelope's last site.
      int64_t first = 0;
      for (;;) {
        first = floor_div(height(q) - height(sites[top]), 2 * (q - sites[top])) + 1;
        if (first > firsts[top] || top == 0) break;
        --top;
      }
      if (first <= firsts[top]) top = -1, first = 0;
      if (first >= width) continue;
      sites[++top] = q;
      firsts[top] = first;
    }
    for (int64_t x = width - 1; x >= 0; --x) {
      while (firsts[top] > x) --top;
      const int64_t away = x - sites[top], step = column[sites[top]];
      squared_[static_cast<size_t>(x)] = away * away + step * step;
    }
  }

  std::vector<Run> runs_;
  std::vector<size_t> starts_;  // of each row of the box, in runs_
  int64_t top_ = 0, left_ = 0, right_ = 0, height_ = 0, stride_ = 0, pixels_ = 0;
  std::vector<int32_t>& steps_;
  std::vector<int32_t> bounds_;
  std::vector<int64_t> sites_, firsts_, squared_;
  Pixel found_;
  int64_t best_ = 0;  // the squared distance of found_
};

}  // namespace

bool inscribed_points(const uint8_t* mask, int64_t height, int64_t width, int64_t* points) {
  thread_local std::vector<int32_t> kept;  // new memory for each call would take longer than all else
  Shape shape(mask, height, width, kept);
  if (shape.empty()) return false;
  const Pixel first = shape.deepest({}, -1), second = shape.deepest(first, shape.median_away(first));
  const Pixel corner = shape.corner();
  points[0] = corner.x + first.x, points[1] = corner.y + first.y;
  points[2] = corner.x + second.x, points[3] = corner.y + second.y;
  if (kept.size() > 2 * kScratchWords) std::vector<int32_t>().swap(kept);
  return true;
}

}  // namespace dpad
