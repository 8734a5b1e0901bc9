#include <algorithm>
#include <vector>

#include "check.h"
#include "core/masks/masks.h"

namespace {

using Mask = std::vector<uint8_t>;
using Points = std::vector<int64_t>;

// The squared distance to the nearest pixel that is not in the mask, every one looked at.
int64_t depth(const Mask& mask, int64_t height, int64_t width, int64_t x, int64_t y) {
  int64_t nearest = INT64_MAX;
  for (int64_t v = -1; v <= height; ++v)
    for (int64_t u = -1; u <= width; ++u) {
      const bool inside = v >= 0 && v < height && u >= 0 && u < width;
      if (inside && mask[static_cast<size_t>(v * width + u)] != 0) continue;
      nearest = std::min(nearest, (x - u) * (x - u) + (y - v) * (y - v));
    }
  return nearest;
}

// As masks.h says, without a shortcut.
Points plain(const Mask& mask, int64_t height, int64_t width) {
  Points points{0, 0, 0, 0};
  std::vector<int64_t> away;
  for (size_t pass = 0; pass < 2; ++pass) {
    int64_t best = 0, least = -1;
    if (pass == 1) {
      std::sort(away.begin(), away.end());
      least = away[(away.size() - 1) / 2];
      points[2] = points[0], points[3] = points[1];
    }
    for (int64_t y = 0; y < height; ++y)
      for (int64_t x = 0; x < width; ++x) {
        if (mask[static_cast<size_t>(y * width + x)] == 0) continue;
        const int64_t from = (x - points[0]) * (x - points[0]) + (y - points[1]) * (y - points[1]);
        const int64_t found = depth(mask, height, width, x, y);
        if ((pass == 1 && from <= least) || found <= best) continue;
        best = found, points[2 * pass] = x, points[2 * pass + 1] = y;
      }
    if (pass == 1) break;
    for (int64_t y = 0; y < height; ++y)
      for (int64_t x = 0; x < width; ++x)
        if (mask[static_cast<size_t>(y * width + x)] != 0)
          away.push_back((x - points[0]) * (x - points[0]) + (y - points[1]) * (y - points[1]));
  }
  return points;
}

Points found(const Mask& mask, int64_t height, int64_t width) {
  Points points(4, -1);
  CHECK(dpad::inscribed_points(mask.data(), height, width, points.data()));
  return points;
}

}  // namespace

TEST(points_of_a_mask_with_holes) {
  constexpr int64_t kHeight = 11, kWidth = 14;
  Mask mask(kHeight * kWidth);
  for (size_t i = 0; i < mask.size(); ++i) mask[i] = i % 17 != 3 && i % 23 != 11;
  CHECK(found(mask, kHeight, kWidth) == plain(mask, kHeight, kWidth));
}

// Bounds along rows and columns say little of slanting ones, so that rows are done at once.
TEST(points_of_a_slanting_band) {
  constexpr int64_t kSide = 90;
  Mask mask(kSide * kSide);
  for (int64_t y = 0; y < kSide; ++y)
    for (int64_t x = 0; x < kSide; ++x)
      mask[static_cast<size_t>(y * kSide + x)] = std::abs(x - y) < 30 && (x + y) % 61 != 7;
  CHECK(found(mask, kSide, kSide) == plain(mask, kSide, kSide));
}

TEST(beyond_the_image_is_outside) {
  CHECK(found(Mask(15, 1), 3, 5) == (Points{1, 1, 3, 1}));
  CHECK(found(Mask(1, 1), 1, 1) == (Points{0, 0, 0, 0}));
}

TEST(rows_without_pixels_and_bytes_beyond_one) {
  Mask mask(7 * 70);
  mask[2 * 70 + 65] = 255, mask[5 * 70 + 1] = 2;
  CHECK(found(mask, 7, 70) == (Points{65, 2, 1, 5}));
}

TEST(an_empty_mask_has_no_points) {
  Points points(4, -1);
  CHECK(!dpad::inscribed_points(Mask(6, 0).data(), 2, 3, points.data()));
  CHECK(!dpad::inscribed_points(nullptr, 0, 0, points.data()));
  CHECK(points == Points(4, -1));
}
