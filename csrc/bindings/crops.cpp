// Pictures: their pixels, their digests, and crop, resize and normalisation in one.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/address.h"
#include "bindings/bind.h"
#include "core/base/parallel.h"
#include "core/crops/digest.h"
#include "core/crops/geometry.h"
#include "core/crops/pack.h"
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

constexpr std::pair<const char*, dpad::Layout> kLayouts[] = {
    {"rgb", dpad::Layout::rgb},
    {"rgbx", dpad::Layout::rgbx},
    {"planar", dpad::Layout::planar},
};
constexpr std::pair<const char*, dpad::Resize> kResizes[] = {
    {"shortest", dpad::Resize::shortest},
    {"squash", dpad::Resize::squash},
    {"longest", dpad::Resize::longest},
};
constexpr std::pair<const char*, dpad::Filter> kFilters[] = {
    {"bicubic", dpad::Filter::bicubic},
    {"bilinear", dpad::Filter::bilinear},
};
constexpr std::pair<const char*, dpad::Center> kCenters[] = {
    {"floor", dpad::Center::floor},
    {"round", dpad::Center::round},
};
constexpr std::pair<const char*, dpad::PassOrder> kOrders[] = {
    {"horizontal", dpad::PassOrder::horizontal},
    {"pillow-12.3", dpad::PassOrder::pillow_12_3},
    {"pillow-13", dpad::PassOrder::pillow_13},
};
constexpr std::pair<const char*, dpad::PixelType> kPixelTypes[] = {
    {"float32", dpad::PixelType::float32},
    {"bfloat16", dpad::PixelType::bfloat16},
    {"float16", dpad::PixelType::float16},
};

// Address, height, width, layout, row stride, plane stride.
using ImageArgs = std::tuple<Address, int64_t, int64_t, std::string, int64_t, int64_t>;

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
  const bool is_image = std::all_of(box, box + 4, [](int64_t corner) { return corner == kWholeImage; });
  if (is_image) region = {image, 0, 0, images[image].width, images[image].height};
  for (int j = 0; j < 4 && !is_image; ++j)
    if (box[j] < -kFarthest || box[j] > kFarthest) refuse(i, region, "has a corner that is not finite or beyond 2**30");
  if (region.x1 >= region.x2 || region.y1 >= region.y2) refuse(i, region, "has zero area");
  if (region.x2 - region.x1 > kLongestSide || region.y2 - region.y1 > kLongestSide)
    refuse(i, region, "has a side of more than 2**20 pixels");
  return region;
}

std::vector<dpad::ImageView> image_views(const std::vector<ImageArgs>& images) {
  std::vector<dpad::ImageView> views;
  views.reserve(images.size());
  for (const auto& [address, height, width, layout, row_stride, plane_stride] : images)
    views.push_back(
        {at<const uint8_t>(address), height, width, named("layout", layout, kLayouts), row_stride, plane_stride});
  return views;
}

// boxes int64 [count, 4], image_index int64 [count], out [count, 3, size, size]. `simd` names the highest instruction
// set to use.
void roi_clip_preprocess(const std::vector<ImageArgs>& images, Address boxes, Address image_index, int64_t count,
                         int64_t size, const std::string& resize, const std::string& filter, const std::string& center,
                         const std::string& order, const std::array<float, 3>& mean, const std::array<float, 3>& std,
                         const std::string& type, const std::string& simd, int threads, Address out) {
  const std::vector<dpad::ImageView> views = image_views(images);
  std::vector<dpad::Region> regions;
  regions.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i)
    regions.push_back(checked_region(i, at<const int64_t>(boxes) + 4 * i, at<const int64_t>(image_index)[i], views));
  const dpad::PreprocessOptions options{size,
                                        named("resize", resize, kResizes),
                                        named("interpolation", filter, kFilters),
                                        named("center", center, kCenters),
                                        named("order", order, kOrders),
                                        {mean[0], mean[1], mean[2]},
                                        {std[0], std[1], std[2]},
                                        named("type", type, kPixelTypes),
                                        dpad::simd_level_named("simd", simd)};
  without_gil([&] { dpad::roi_clip_preprocess(views, regions, options, threads, at<void>(out)); });
}

// (address, pixels, bytes from one to the next).
using DigestArgs = std::tuple<Address, int64_t, int64_t>;

// 128 bits for each picture, as two numbers.
std::vector<std::array<uint64_t, 2>> digest_pictures(const std::vector<DigestArgs>& pictures, int threads) {
  std::vector<std::array<uint64_t, 2>> found(pictures.size());
  without_gil([&] {
    dpad::parallel_for(static_cast<int64_t>(pictures.size()), threads, [&](int64_t i, int) {
      const auto& [address, count, step] = pictures[i];
      found[i] = dpad::digest_pixels(at<const uint8_t>(address), count, step);
    });
  });
  return found;
}

// Address, height, width, strides of a row, a pixel and a channel, and where in `memory` the picture begins.
using PackArgs = std::tuple<Address, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t>;

// Copies pictures to their places in `memory`: three bytes a pixel, or one where all channels are the same.
void pack_pictures(const std::vector<PackArgs>& pictures, Address memory, int threads) {
  std::vector<dpad::PackedPicture> found;
  found.reserve(pictures.size());
  for (const auto& [address, height, width, row, pixel, channel, start] : pictures)
    found.push_back({at<const uint8_t>(address), height, width, row, pixel, channel, at<uint8_t>(memory) + start});
  without_gil([&] { dpad::pack_pictures(found, threads); });
}

// The table of regions that kernels/roi_clip_preprocess.py has its kernels read, int64 [count, 24], whose columns it
// names; of a pair the second is y's. `facts`, 7 of each image: address, strides of a column, a row and a colour,
// width, height, bytes of a pixel that is read in words. Returns how many weights and bytes between the passes all
// regions need, and lines of the first pass one needs.
std::tuple<int64_t, int64_t, int64_t> crop_table(const std::vector<std::array<int64_t, 7>>& facts, Address boxes,
                                                 Address image_index, int64_t count, int64_t size,
                                                 const std::string& resize, const std::string& filter,
                                                 const std::string& center, const std::string& order, Address table) {
  std::vector<dpad::ImageView> views(facts.size());
  for (size_t m = 0; m < facts.size(); ++m) {
    views[m].width = facts[m][4];
    views[m].height = facts[m][5];
  }
  dpad::PreprocessOptions options{};
  options.size = size;
  options.resize = named("resize", resize, kResizes);
  options.filter = named("interpolation", filter, kFilters);
  options.center = named("center", center, kCenters);
  options.order = named("order", order, kOrders);
  int64_t weights = 0, between = 0, most_lines = 0;
  auto* row = at<int64_t>(table);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t image = at<const int64_t>(image_index)[i];
    const dpad::Region box = checked_region(i, at<const int64_t>(boxes) + 4 * i, image, views);
    const std::array<int64_t, 7>& fact = facts[static_cast<size_t>(image)];
    const dpad::Geometry plan = dpad::plan_geometry(box.x2 - box.x1, box.y2 - box.y1, options);
    row = std::copy(fact.begin(), fact.end() - 1, row);
    *row++ = box.x1;
    *row++ = box.y1;
    const std::array<dpad::Side, 2> sides{plan.width, plan.height};
    for (const dpad::Side& side : sides) *row++ = side.source;
    for (const dpad::Side& side : sides) *row++ = side.resized;
    for (const dpad::Side& side : sides) *row++ = side.resized < size ? -side.pad : side.first;
    std::array<int64_t, 2> taps{};
    for (int axis = 0; axis < 2; ++axis) {
      const double scale = static_cast<double>(sides[axis].source) / static_cast<double>(sides[axis].resized);
      const double reach = (options.filter == dpad::Filter::bicubic ? 2.0 : 1.0) * std::max(scale, 1.0);
      taps[axis] = 2 * static_cast<int64_t>(std::ceil(reach)) + 1;
      std::memcpy(row++, &scale, sizeof scale);
    }
    row = std::copy(taps.begin(), taps.end(), row);
    for (const int64_t each : taps) {
      *row++ = weights;
      weights += each * size;
    }
    // Lines of the first pass: what of the crop lies in the image, across that pass's axis.
    const bool down = plan.vertical_first;
    const int64_t lines = down ? std::min(box.x2, fact[4]) - std::max<int64_t>(box.x1, 0)
                               : std::min(box.y2, fact[5]) - std::max<int64_t>(box.y1, 0);
    const int64_t seen = std::max<int64_t>(lines, 0);
    *row++ = down;
    *row++ = seen;
    *row++ = between;
    between += 3 * (down ? size * ((seen + 15) / 16) : seen * ((size + 15) / 16));  // in 16 bytes
    *row++ = fact[6];
    most_lines = std::max(most_lines, seen);
  }
  return {weights, 16 * between, most_lines};
}

}  // namespace

void bind_crops(py::module_& m) {
  m.def("lent_pixels", &lent_pixels);
  m.def("roi_clip_preprocess", &roi_clip_preprocess);
  m.def("digest_pictures", &digest_pictures);
  m.def("pack_pictures", &pack_pictures);
  m.def("crop_table", &crop_table);
}
