#include <vector>

#include "check.h"
#include "core/masks/masks.h"

TEST(squared_distances_are_the_nearest_outside_pixels) {
  constexpr int64_t kHeight = 11, kWidth = 14;
  std::vector<uint8_t> mask(kHeight * kWidth);
  for (size_t i = 0; i < mask.size(); ++i) mask[i] = i % 17 != 3 && i % 23 != 11;
  std::vector<int64_t> out(mask.size());
  dpad::distance_squared(mask.data(), kHeight, kWidth, out.data());
  for (int64_t y = 0; y < kHeight; ++y)
    for (int64_t x = 0; x < kWidth; ++x) {
      int64_t nearest = INT64_MAX;
      for (int64_t v = -1; v <= kHeight; ++v)
        for (int64_t u = -1; u <= kWidth; ++u) {
          const bool inside = v >= 0 && v < kHeight && u >= 0 && u < kWidth;
          if (inside && mask[static_cast<size_t>(v * kWidth + u)] != 0) continue;
          nearest = std::min(nearest, (x - u) * (x - u) + (y - v) * (y - v));
        }
      CHECK(out[static_cast<size_t>(y * kWidth + x)] == nearest);
    }
}

TEST(beyond_the_image_is_outside) {
  const std::vector<uint8_t> full(9, 1);
  std::vector<int64_t> out(9);
  dpad::distance_squared(full.data(), 3, 3, out.data());
  CHECK(out == (std::vector<int64_t>{1, 1, 1, 1, 4, 1, 1, 1, 1}));
}
