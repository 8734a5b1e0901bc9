#include "bindings/arguments.h"

#include <stdexcept>

#include "bindings/bind.h"

void check_range(const char* argument, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high)
    throw std::invalid_argument(std::string(argument) + " must be from " + std::to_string(low) + " to " +
                                std::to_string(high) + ", got " + std::to_string(value));
}

void check_masks(int64_t n, int64_t height, int64_t width) {
  check_range("the number of masks", n, 0, kMostItems);
  dpad::check_mask_size("height and width of masks", height, width);
}

dpad::PackedView packed_masks(const PackedArgs& args, int64_t height, int64_t width) {
  const auto [words, area, box, n] = args;
  check_masks(n, height, width);
  const dpad::PackedView view{
      at<const uint64_t>(words), at<const int64_t>(area), at<const dpad::PixelBox>(box), n, height, width};
  for (int64_t i = 0; i < n; ++i) {
    const dpad::PixelBox& b = view.box[i];
    if (b.x1 < 0 || b.y1 < 0 || b.x1 > b.x2 || b.y1 > b.y2 || b.x2 > width || b.y2 > height)
      throw std::invalid_argument("box[" + std::to_string(i) + "] does not lie in the mask");
  }
  return view;
}

std::optional<dpad::PackedView> packed_masks(const std::optional<PackedArgs>& args, int64_t height, int64_t width) {
  if (!args) return std::nullopt;
  return packed_masks(*args, height, width);
}

void check_ignored(const std::optional<dpad::PackedView>& ignored, int64_t n) {
  if (ignored && ignored->n != 1 && ignored->n != n)
    throw std::invalid_argument("ignore must hold one mask or " + std::to_string(n) + ", got " +
                                std::to_string(ignored->n));
}

void check_counts(const PolygonArgs& args) {
  check_range("the number of vertices", std::get<1>(args), 0, kMostItems);
  check_range("the number of rings", std::get<3>(args), 0, kMostItems);
  check_range("the number of polygons", std::get<5>(args), 0, kMostItems);
}

dpad::PolygonBatch checked_polygons(const PolygonArgs& args) {
  check_counts(args);
  const auto [vertices, vertex_count, rings, ring_count, objects, n] = args;
  const dpad::PolygonBatch batch{at<const double>(vertices), at<const int64_t>(rings), at<const int64_t>(objects), n};
  dpad::check_polygons(batch, vertex_count, ring_count);
  return batch;
}
