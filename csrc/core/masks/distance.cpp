// Exact Euclidean distance transform in linear time: columns by two sweeps, rows by the lower envelope of parabolas
// (Felzenszwalb and Huttenlocher, "Distance Transforms of Sampled Functions", 2012), all in integers.
#include <algorithm>

#include "core/masks/masks.h"

namespace dpad {

namespace {

// Integer floor(a / b) for b > 0.
int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && a < 0); }

// squared[x] = min over all columns q of (x - q)^2 + steps[q]^2, for a row that starts and ends outside the mask.
void envelope(const int64_t* steps, int64_t width, int64_t* sites, int64_t* starts, int64_t* squared) {
  const auto height = [&](int64_t q) { return steps[q] * steps[q] + q * q; };
  int64_t top = 0;
  sites[0] = 0;
  starts[0] = 0;
  for (int64_t q = 1; q < width; ++q) {
    // From `first` on, column q is strictly nearer than the envelope's last site.
    int64_t first = 0;
    for (;;) {
      first = floor_div(height(q) - height(sites[top]), 2 * (q - sites[top])) + 1;
      if (first > starts[top] || top == 0) break;
      --top;
    }
    if (first <= starts[top]) top = -1, first = 0;
    if (first >= width) continue;
    sites[++top] = q;
    starts[top] = first;
  }
  for (int64_t x = width - 1; x >= 0; --x) {
    while (starts[top] > x) --top;
    const int64_t away = x - sites[top];
    squared[x] = away * away + steps[sites[top]] * steps[sites[top]];
  }
}

}  // namespace

void distance_squared(const uint8_t* mask, int64_t height, int64_t width, int64_t* out) {
  // One column of outside on either side, so that beyond the image counts as outside.
  const int64_t padded = width + 2;
  std::vector<int64_t> steps(static_cast<size_t>(height * padded), 0), row(static_cast<size_t>(3 * padded));
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x) {
      int64_t* here = &steps[static_cast<size_t>(y * padded + x + 1)];
      if (mask[y * width + x] != 0) *here = 1 + (y > 0 ? *(here - padded) : 0);
    }
  for (int64_t y = height - 1; y >= 0; --y)
    for (int64_t x = 0; x < width; ++x) {
      int64_t* here = &steps[static_cast<size_t>(y * padded + x + 1)];
      *here = std::min(*here, 1 + (y + 1 < height ? *(here + padded) : 0));
    }
  int64_t *sites = row.data(), *starts = sites + padded, *squared = starts + padded;
  for (int64_t y = 0; y < height; ++y) {
    envelope(&steps[static_cast<size_t>(y * padded)], padded, sites, starts, squared);
    std::copy(squared + 1, squared + 1 + width, out + y * width);
  }
}

}  // namespace dpad
