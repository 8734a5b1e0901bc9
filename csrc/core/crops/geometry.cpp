#include "core/crops/geometry.h"

#include <algorithm>
#include <cmath>

namespace dpad {

namespace {

constexpr int kPrecisionBits = 22;

// Which pass Pillow runs first. Before 12.3 it is always the horizontal one. 12.3 runs the vertical pass first for
// images that shrink in height and are over 100 times as high as wide; 13.0 where the height loses more than twice as
// many pixels as the width.
bool vertical_first(const Side& width, const Side& height, PassOrder order) {
  const int64_t lost = height.source - height.resized;
  if (lost <= 0) return false;
  if (order == PassOrder::pillow_13) return lost > 2 * (width.source - width.resized);
  return order == PassOrder::pillow_12_3 && height.source > 100 * width.source;
}

// Python's round(): half to even.
int64_t rounded(double value) { return static_cast<int64_t>(std::nearbyint(value)); }

void keep_center(Side& side, int64_t size, Center center) {
  const int64_t margin = side.resized - size;
  side.kept = std::min(side.resized, size);
  side.pad = margin < 0 ? -margin / 2 : 0;
  side.first = 0;
  if (margin > 0) side.first = center == Center::floor ? margin / 2 : rounded(static_cast<double>(margin) / 2.0);
}

double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::fabs(x);
  const double near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  const double far = (((x - 5) * x + 8) * x - 4) * a;
  return x < 1.0 ? near : (x < 2.0 ? far : 0.0);
}

double bilinear(double x) {
  x = std::fabs(x);
  return x < 1.0 ? 1.0 - x : 0.0;
}

// Which source pixels weigh in output i, and where its centre lies.
struct Sampler {
  Sampler(const AxisKey& key)
      : scale(resize_scale(key.source, key.resized)),
        stretch(std::max(scale, 1.0)),
        inverse(1.0 / stretch),
        // A side that keeps its size is copied, as in Pillow: the same result from one weight of 1.
        support(key.source == key.resized ? 0.5 : filter_support(scale, key.filter)),
        source(key.source) {}

  double center(int64_t i) const { return (static_cast<double>(i) + 0.5) * scale; }
  Range span(double at) const {
    return {std::max<int64_t>(static_cast<int64_t>(at - support + 0.5), 0),
            std::min<int64_t>(static_cast<int64_t>(at + support + 0.5), source)};
  }

  double scale, stretch, inverse, support;
  int64_t source;
};

int32_t fixed_point(double weight) {
  const double scaled = weight * (1 << kPrecisionBits);
  return static_cast<int32_t>(weight < 0 ? -0.5 + scaled : 0.5 + scaled);
}

void put(PairWeight* pairs, int64_t tap, int32_t weight) {
  PairWeight& pair = pairs[tap / 2];
  const int16_t low = static_cast<int16_t>(static_cast<uint16_t>(weight));
  pair.low[tap % 2] = low;
  pair.high[tap % 2] = pair.high[tap % 2 + 2] = static_cast<int8_t>((weight - low) / 65536);
}

// The weights of one output. The order of operations is Pillow's, because the last bit of the doubles decides some of
// its 22-bit results.
void one_window(const AxisKey& key, const Sampler& sampler, int64_t i, int64_t window, std::vector<double>& raw,
                PairWeight* pairs) {
  const double center = sampler.center(i);
  const Range span = sampler.span(center);
  const int64_t n = span.end - span.begin;
  for (int64_t x = 0; x < n; ++x) {
    const double at = (static_cast<double>(x + span.begin) - center + 0.5) * sampler.inverse;
    raw[x] = key.filter == Filter::bicubic ? bicubic(at) : bilinear(at);
  }
  double total = 0.0;
  for (int64_t x = 0; x < n; ++x) total += raw[x];
  if (total == 0.0) total = 1.0;
  const int64_t stop = std::min(span.end, key.valid_end);
  for (int64_t x = std::max(span.begin, key.valid_begin); x < stop; ++x)
    put(pairs, x - window, fixed_point(raw[x - span.begin] / total));
}

}  // namespace

Geometry plan_geometry(int64_t source_width, int64_t source_height, const ResizeOptions& options) {
  const int64_t size = options.size;
  Side width{source_width, size, 0, 0, 0};
  Side height{source_height, size, 0, 0, 0};
  if (options.resize == Resize::shortest) {
    if (source_width <= source_height)
      height.resized = size * source_height / source_width;
    else
      width.resized = size * source_width / source_height;
  } else if (options.resize == Resize::longest) {
    const double target = static_cast<double>(size);
    const double w = static_cast<double>(source_width), h = static_cast<double>(source_height);
    const double ratio = std::max(h / target, w / target);
    width.resized = std::max<int64_t>(rounded(w / ratio), 1);
    height.resized = std::max<int64_t>(rounded(h / ratio), 1);
  }
  keep_center(width, size, options.center);
  keep_center(height, size, options.center);
  return {width, height, vertical_first(width, height, options.order)};
}

Range inside(int64_t begin, int64_t end, int64_t length) {
  return {std::max<int64_t>(-begin, 0), std::min(length, end) - begin};
}

double resize_scale(int64_t source, int64_t resized) {
  return static_cast<double>(source) / static_cast<double>(resized);
}

double filter_support(double scale, Filter filter) {
  return (filter == Filter::bicubic ? 2.0 : 1.0) * std::max(scale, 1.0);
}

int64_t most_taps(double scale, Filter filter) {
  return 2 * static_cast<int64_t>(std::ceil(filter_support(scale, filter))) + 1;
}

bool AxisKey::operator==(const AxisKey& other) const {
  return source == other.source && resized == other.resized && first == other.first && kept == other.kept &&
         valid_begin == other.valid_begin && valid_end == other.valid_end && filter == other.filter &&
         from_begin == other.from_begin;
}

void compute_weights(const AxisKey& key, std::vector<double>& scratch, AxisWeights& out) {
  const Sampler sampler(key);
  out.key = key;
  out.first.resize(static_cast<size_t>(key.kept));
  out.begin = key.valid_end;
  out.end = key.valid_begin;
  int64_t longest = 1;
  int64_t widest = 1;
  for (int64_t i = 0; i < key.kept; ++i) {
    const Range span = sampler.span(sampler.center(key.first + i));
    const int64_t begin = std::min(std::max(span.begin, key.valid_begin), key.valid_end - 1);
    const int64_t end = std::max(std::min(span.end, key.valid_end), begin + 1);
    if (i == 0) out.begin = begin;
    out.end = std::max(out.end, end);
    const int64_t window = key.from_begin ? out.begin + (begin - out.begin) / 2 * 2 : begin;
    out.first[i] = static_cast<int32_t>(key.from_begin ? (window - out.begin) / 2 : window);
    longest = std::max(longest, end - window);
    widest = std::max(widest, span.end - span.begin);
  }
  out.pairs = (longest + 1) / 2;
  out.weights.assign(static_cast<size_t>(key.kept * out.pairs), PairWeight{});
  scratch.resize(static_cast<size_t>(widest));
  for (int64_t i = 0; i < key.kept; ++i) {
    const int64_t window = key.from_begin ? out.begin + 2 * out.first[i] : out.first[i];
    one_window(key, sampler, key.first + i, window, scratch, out.weights.data() + i * out.pairs);
  }
}

}  // namespace dpad
