// Pictures: their pixels, their digests, and crop, resize and normalisation in one.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
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
#include "core/crops/gpu_plan.h"
#include "core/crops/pack.h"
#include "core/crops/resample.h"

namespace py = pybind11;

namespace {

constexpr int64_t kWholeImage = -(int64_t{1} << 62);  // of each corner of a box: it is the whole image
constexpr int64_t kFarthest = int64_t{1} << 30;       // sides of images, and corners of boxes
constexpr int64_t kLongestSide = int64_t{1} << 20;    // of boxes and results

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
  check_range("height", height, 0, kFarthest);
  check_range("width", width, 0, kFarthest);
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

void check_sides(size_t i, int64_t height, int64_t width) {
  if (std::min(height, width) < 1 || std::max(height, width) > kFarthest)
    throw std::invalid_argument("images[" + std::to_string(i) + "] must have sides from 1 to 2**30, got " +
                                std::to_string(height) + " x " + std::to_string(width));
}

[[noreturn]] void refuse(int64_t i, const dpad::Region& box, const char* why) {
  std::ostringstream message;
  message << "boxes[" << i << "] " << why << ": (" << box.x1 << ", " << box.y1 << ", " << box.x2 << ", " << box.y2
          << ")";
  throw std::invalid_argument(message.str());
}

template <typename Image>
dpad::Region checked_region(int64_t i, const int64_t* box, int64_t image, const std::vector<Image>& images) {
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

// boxes int64 [count, 4], image_index int64 [count].
template <typename Image>
std::vector<dpad::Region> checked_regions(Address boxes, Address image_index, int64_t count,
                                          const std::vector<Image>& images) {
  check_range("the number of boxes", count, 0, kMostItems);
  std::vector<dpad::Region> regions;
  regions.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i)
    regions.push_back(checked_region(i, at<const int64_t>(boxes) + 4 * i, at<const int64_t>(image_index)[i], images));
  return regions;
}

dpad::ResizeOptions checked_options(int64_t size, const std::string& resize, const std::string& filter,
                                    const std::string& center, const std::string& order) {
  check_range("size", size, 1, kLongestSide);
  return {size, named("resize", resize, kResizes), named("interpolation", filter, kFilters),
          named("center", center, kCenters), named("order", order, kOrders)};
}

std::vector<dpad::ImageView> image_views(const std::vector<ImageArgs>& images) {
  std::vector<dpad::ImageView> views;
  views.reserve(images.size());
  for (const auto& [address, height, width, layout, row_stride, plane_stride] : images) {
    check_sides(views.size(), height, width);
    views.push_back(
        {at<const uint8_t>(address), height, width, named("layout", layout, kLayouts), row_stride, plane_stride});
  }
  return views;
}

// out [count, 3, size, size]. `simd` names the highest instruction set to use.
void roi_clip_preprocess(const std::vector<ImageArgs>& images, Address boxes, Address image_index, int64_t count,
                         int64_t size, const std::string& resize, const std::string& filter, const std::string& center,
                         const std::string& order, const std::array<float, 3>& mean, const std::array<float, 3>& std,
                         const std::string& type, const std::string& simd, int threads, Address out) {
  const std::vector<dpad::ImageView> views = image_views(images);
  const std::vector<dpad::Region> regions = checked_regions(boxes, image_index, count, views);
  const dpad::PreprocessOptions options{checked_options(size, resize, filter, center, order),
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
  for (const auto& [address, count, step] : pictures) {
    check_range("pixels of a picture", count, 0, INT64_MAX / 4);
    check_range("bytes from a pixel to the next", step, 3, 4);
  }
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
  for (const auto& [address, height, width, row, pixel, channel, start] : pictures) {
    check_range("a picture's height", height, 0, kFarthest);
    check_range("a picture's width", width, 0, kFarthest);
    check_range("a picture's place", start, 0, INT64_MAX);
    found.push_back({at<const uint8_t>(address), height, width, row, pixel, channel, at<uint8_t>(memory) + start});
  }
  without_gil([&] { dpad::pack_pictures(found, threads); });
}

// Address on the GPU, strides of a column, a row and a colour, width, height, bytes of a pixel that is read in words.
using GpuImageArgs = std::tuple<Address, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t>;

// Fills table[count] of csrc/core/crops/gpu_plan.h, on the host. Returns how many weights and bytes between the passes
// all regions need, and lines of the first pass the largest one needs.
std::tuple<int64_t, int64_t, int64_t> gpu_crop_table(const std::vector<GpuImageArgs>& images, Address boxes,
                                                     Address image_index, int64_t count, int64_t size,
                                                     const std::string& resize, const std::string& filter,
                                                     const std::string& center, const std::string& order,
                                                     Address table) {
  std::vector<dpad::GpuImage> there;
  there.reserve(images.size());
  for (const auto& [address, stride_x, stride_y, stride_c, width, height, pixel_bytes] : images) {
    check_sides(there.size(), height, width);
    there.push_back({static_cast<int64_t>(address), stride_x, stride_y, stride_c, width, height, pixel_bytes});
  }
  const std::vector<dpad::Region> regions = checked_regions(boxes, image_index, count, there);
  const dpad::ResizeOptions options = checked_options(size, resize, filter, center, order);
  const dpad::GpuPlan plan =
      without_gil([&] { return dpad::plan_for_gpu(there, regions, options, at<dpad::GpuCrop>(table)); });
  return {plan.weights, plan.between, plan.most_lines};
}

// Where each number of that table's rows is, by name, and how many there are.
std::pair<std::map<std::string, size_t>, size_t> gpu_crop_columns() {
  using dpad::GpuCrop;
  constexpr size_t kNumber = sizeof(int64_t);
  std::map<std::string, size_t> found{{"pointer", offsetof(GpuCrop, pointer)},
                                      {"stride_c", offsetof(GpuCrop, stride_c)},
                                      {"vertical_first", offsetof(GpuCrop, vertical_first)},
                                      {"lines", offsetof(GpuCrop, lines)},
                                      {"between", offsetof(GpuCrop, between)},
                                      {"pixel_bytes", offsetof(GpuCrop, pixel_bytes)}};
  const std::pair<const char*, size_t> per_axis[] = {
      {"stride", offsetof(GpuCrop, stride)},  {"extent", offsetof(GpuCrop, extent)},
      {"corner", offsetof(GpuCrop, corner)},  {"source", offsetof(GpuCrop, source)},
      {"target", offsetof(GpuCrop, target)},  {"offset", offsetof(GpuCrop, offset)},
      {"scale", offsetof(GpuCrop, scale)},    {"taps", offsetof(GpuCrop, taps)},
      {"weights", offsetof(GpuCrop, weights)}};
  for (const auto& [name, at] : per_axis) {
    found[std::string(name) + "_x"] = at;
    found[std::string(name) + "_y"] = at + kNumber;
  }
  for (auto& entry : found) entry.second /= kNumber;
  return {found, sizeof(GpuCrop) / kNumber};
}

}  // namespace

void bind_crops(py::module_& m) {
  m.def("lent_pixels", &lent_pixels);
  m.def("roi_clip_preprocess", &roi_clip_preprocess);
  m.def("digest_pictures", &digest_pictures);
  m.def("pack_pictures", &pack_pictures);
  m.def("gpu_crop_table", &gpu_crop_table);
  m.def("gpu_crop_columns", &gpu_crop_columns);
}
