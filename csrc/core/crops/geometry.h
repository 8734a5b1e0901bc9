// Sizes after the resize, what the centre crop keeps of them, and the weights of each kept row or column.
#pragma once

#include <cstdint>
#include <vector>

#include "core/crops/resample.h"

namespace dpad {

// One side of the picture: `kept` of its `resized` pixels, from `first` on, go to [pad, pad + kept) of the output.
struct Side {
  int64_t source;
  int64_t resized;
  int64_t first;
  int64_t kept;
  int64_t pad;
};

struct Geometry {
  Side width;
  Side height;
  bool vertical_first;
};

Geometry plan_geometry(int64_t source_width, int64_t source_height, const ResizeOptions& options);

struct Range {
  int64_t begin;
  int64_t end;
};

// The part of [begin, end), a side of a box, that lies in an image of `length` pixels, counted from the start of the
// box. Without such a part the range ends before it begins, or where it does.
Range inside(int64_t begin, int64_t end, int64_t length);

// Source pixels for each pixel after the resize.
double resize_scale(int64_t source, int64_t resized);
// How far from the centre of an output source pixels weigh in it.
double filter_support(double scale, Filter filter);
// The most source pixels that weigh in one output.
int64_t most_taps(double scale, Filter filter);

// The parameters of a side's weights. Source pixels outside of [valid_begin, valid_end) are black and get no weight.
struct AxisKey {
  int64_t source;
  int64_t resized;
  int64_t first;
  int64_t kept;
  int64_t valid_begin;
  int64_t valid_end;
  Filter filter;
  bool from_begin;  // windows count pairs from `begin` (horizontal pass) rather than single pixels from 0

  bool operator==(const AxisKey& other) const;
};

struct AxisWeights {
  AxisKey key;
  int64_t pairs = 0;
  int64_t begin = 0;  // the source pixels that any output needs
  int64_t end = 0;
  std::vector<int32_t> first;
  std::vector<PairWeight> weights;

  Windows windows(int64_t skip) const {
    return {key.kept - skip, pairs, first.data() + skip, weights.data() + skip * pairs};
  }
};

// Fills `out`, whose memory is reused. `scratch` is any vector that the caller keeps for the next call.
void compute_weights(const AxisKey& key, std::vector<double>& scratch, AxisWeights& out);

}  // namespace dpad
