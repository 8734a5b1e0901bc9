#include "bindings/bind.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "core/crops/digest.h"
#include "core/crops/resample.h"

namespace py = pybind11;

namespace {

// The Arrow C data interface: a layout that the Arrow project promises never to change.
struct ArrowArray {
  int64_t length;
  int64_t null_count;
  int64_t offset;
  int64_t n_buffers;
  int64_t n_children;
  const void** buffers;
  ArrowArray** children;
  ArrowArray* dictionary;
  void (*release)(ArrowArray*);
  void* private_data;
};

// The pixels that a PIL image of 4 bytes a pixel lends: uint8 [height, width, 4] that keeps the loan, or None where the
// capsule does not hold exactly these pixels in one piece.
py::object lent_pixels(const py::capsule& capsule, int64_t height, int64_t width) {
  if (capsule.name() == nullptr || std::string(capsule.name()) != "arrow_array") return py::none();
  const auto* array = static_cast<const ArrowArray*>(capsule.get_pointer());
  if (array->release == nullptr || array->n_children != 1 || array->offset != 0) return py::none();
  const ArrowArray* bytes = array->children[0];
  if (bytes->n_buffers != 2 || bytes->offset != 0 || bytes->length != height * width * 4) return py::none();
  return py::array_t<uint8_t>({height, width, int64_t{4}}, static_cast<const uint8_t*>(bytes->buffers[1]), capsule);
}

// Address, height, width, layout (0 rgb, 1 rgbx, 2 planar), row stride, plane stride.
using ImageTuple = std::tuple<std::uintptr_t, int64_t, int64_t, int, int64_t, int64_t>;

constexpr int64_t kWholeImage = -(int64_t{1} << 62);
constexpr int64_t kFarthest = int64_t{1} << 30;
constexpr int64_t kLongestSide = int64_t{1} << 20;

[[noreturn]] void refuse(int64_t i, const dpad::Region& box, const char* why) {
  std::ostringstream message;
  message << "boxes[" << i << "] " << why << ": (" << box.x1 << ", " << box.y1 << ", " << box.x2 << ", " << box.y2
          << ")";
  throw std::invalid_argument(message.str());
}

dpad::Region checked_region(int64_t i, const int64_t* box, int64_t image, const std::vector<dpad::ImageView>& images) {
  const int64_t count = static_cast<int64_t>(images.size());
  if (image < 0 || image >= count)
    throw std::invalid_argument("image_index[" + std::to_string(i) + "] must be from 0 to " +
                                std::to_string(count - 1) + ", got " + std::to_string(image));
  dpad::Region region{image, box[0], box[1], box[2], box[3]};
  bool whole = true;
  for (int j = 0; j < 4; ++j) whole = whole && box[j] == kWholeImage;
  if (whole) region = {image, 0, 0, images[image].width, images[image].height};
  for (int j = 0; j < 4 && !whole; ++j)
    if (box[j] < -kFarthest || box[j] > kFarthest) refuse(i, region, "has a corner that is not finite or beyond 2**30");
  if (region.x1 >= region.x2 || region.y1 >= region.y2) refuse(i, region, "has zero area");
  if (region.x2 - region.x1 > kLongestSide || region.y2 - region.y1 > kLongestSide)
    refuse(i, region, "has a side of more than 2**20 pixels");
  return region;
}

void py_preprocess(const std::vector<ImageTuple>& images, std::uintptr_t boxes, std::uintptr_t image_index,
                   int64_t count, int64_t size, int resize, int filter, int center, int order,
                   const std::array<float, 3>& mean, const std::array<float, 3>& std, int type, int level, int threads,
                   std::uintptr_t out) {
  std::vector<dpad::ImageView> views;
  views.reserve(images.size());
  for (const auto& [address, height, width, layout, row_stride, plane_stride] : images)
    views.push_back({reinterpret_cast<const uint8_t*>(address), height, width, static_cast<dpad::Layout>(layout),
                     row_stride, plane_stride});
  std::vector<dpad::Region> regions;
  regions.reserve(static_cast<size_t>(count));
  const auto* corners = reinterpret_cast<const int64_t*>(boxes);
  const auto* numbers = reinterpret_cast<const int64_t*>(image_index);
  for (int64_t i = 0; i < count; ++i) regions.push_back(checked_region(i, corners + 4 * i, numbers[i], views));
  const dpad::PreprocessOptions options{size,
                                        static_cast<dpad::Resize>(resize),
                                        static_cast<dpad::Filter>(filter),
                                        static_cast<dpad::Center>(center),
                                        static_cast<dpad::PassOrder>(order),
                                        {mean[0], mean[1], mean[2]},
                                        {std[0], std[1], std[2]},
                                        static_cast<dpad::PixelType>(type),
                                        static_cast<dpad::SimdLevel>(level)};
  py::gil_scoped_release release;
  dpad::roi_clip_preprocess(views, regions, options, threads, reinterpret_cast<void*>(out));
}

}  // namespace

void bind_crops(py::module_& m) {
  m.def("lent_pixels", &lent_pixels);
  m.def("roi_clip_preprocess", &py_preprocess);
  m.def("digest_pixels", [](std::uintptr_t pixels, int64_t count, int64_t step) {
    py::gil_scoped_release release;
    return dpad::digest_pixels(reinterpret_cast<const uint8_t*>(pixels), count, step);
  });
}
