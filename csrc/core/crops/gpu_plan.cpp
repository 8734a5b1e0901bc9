#include "core/crops/gpu_plan.h"

#include <algorithm>

#include "core/crops/geometry.h"

namespace dpad {

namespace {

constexpr int64_t kUnit = 16;  // bytes; the kernels begin every row of bytes between the passes at a multiple of it

int64_t units(int64_t bytes) { return (bytes + kUnit - 1) / kUnit; }

template <typename T, typename Of>
PerAxis<T> per_axis(const Geometry& geometry, const Of& of) {
  return {of(geometry.width), of(geometry.height)};
}

// Pixels of a side of a box that lie in the image.
int64_t seen(int64_t begin, int64_t end, int64_t length) {
  const Range part = inside(begin, end, length);
  return std::max<int64_t>(part.end - part.begin, 0);
}

}  // namespace

GpuPlan plan_for_gpu(const std::vector<GpuImage>& images, const std::vector<Region>& regions,
                     const ResizeOptions& options, GpuCrop* table) {
  GpuPlan plan;
  for (const Region& box : regions) {
    const GpuImage& image = images[static_cast<size_t>(box.image)];
    const Geometry geometry = plan_geometry(box.x2 - box.x1, box.y2 - box.y1, options);
    GpuCrop& crop = *table++;
    crop.pointer = image.pointer;
    crop.stride = {image.stride_x, image.stride_y};
    crop.stride_c = image.stride_c;
    crop.extent = {image.width, image.height};
    crop.corner = {box.x1, box.y1};
    crop.source = per_axis<int64_t>(geometry, [](const Side& side) { return side.source; });
    crop.target = per_axis<int64_t>(geometry, [](const Side& side) { return side.resized; });
    crop.offset = per_axis<int64_t>(geometry, [](const Side& side) { return side.first - side.pad; });
    crop.scale = per_axis<double>(geometry, [](const Side& side) { return resize_scale(side.source, side.resized); });
    crop.taps = {most_taps(crop.scale.x, options.filter), most_taps(crop.scale.y, options.filter)};
    crop.weights = {plan.weights, plan.weights + crop.taps.x * options.size};
    plan.weights += (crop.taps.x + crop.taps.y) * options.size;
    crop.vertical_first = geometry.vertical_first;
    crop.lines = geometry.vertical_first ? seen(box.x1, box.x2, image.width) : seen(box.y1, box.y2, image.height);
    crop.between = plan.between / kUnit;
    const int64_t planes =
        kChannels * (geometry.vertical_first ? options.size * units(crop.lines) : crop.lines * units(options.size));
    plan.between += kUnit * planes;
    plan.most_lines = std::max(plan.most_lines, crop.lines);
    crop.pixel_bytes = image.pixel_bytes;
  }
  return plan;
}

}  // namespace dpad
