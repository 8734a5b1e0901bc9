#include "bindings/arguments.h"

#include <stdexcept>

#include "bindings/bind.h"

void check_range(const char* argument, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high)
    throw std::invalid_argument(std::string(argument) + " must be from " + std::to_string(low) + " to " +
                                std::to_string(high) + ", got " + std::to_string(value));
}

dpad::PackedView packed_masks(const PackedArgs& args, int64_t height, int64_t width) {
  const auto [words, area, box, n] = args;
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

dpad::PolygonBatch checked_polygons(const PolygonArgs& args) {
  const auto [vertices, vertex_count, rings, ring_count, objects, n] = args;
  const dpad::PolygonBatch batch{at<const double>(vertices), at<const int64_t>(rings), at<const int64_t>(objects), n};
  dpad::check_polygons(batch, vertex_count, ring_count);
  return batch;
}
