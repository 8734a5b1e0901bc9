// Crop, antialiased resize, centre crop and normalisation of many regions of many images, bit for bit as Pillow does.
#pragma once

#include <cstdint>
#include <vector>

#include "simd/crops/table.h"

namespace dpad {

enum class Resize { shortest, squash, longest };
enum class Filter { bicubic, bilinear };
enum class Center { floor, round };
// Which pass Pillow runs first; see vertical_first() in geometry.cpp.
enum class PassOrder { horizontal, pillow_12_3, pillow_13 };
enum class PixelType { float32, bfloat16, float16 };

// uint8 pixels in memory of the caller's. rgb: 3 bytes a pixel; rgbx: 4; planar: plane_stride between planes.
struct ImageView {
  const uint8_t* data;
  int64_t height;
  int64_t width;
  Layout layout;
  int64_t row_stride;
  int64_t plane_stride;
};

// Columns [x1, x2) and rows [y1, y2) of an image, which may lie outside of it, where all is black.
struct Region {
  int64_t image;
  int64_t x1, y1, x2, y2;
};

struct ResizeOptions {
  int64_t size;
  Resize resize;
  Filter filter;
  Center center;
  PassOrder order;
};

struct PreprocessOptions : ResizeOptions {
  float mean[kChannels];
  float std[kChannels];
  PixelType type;
  SimdLevel level;
};

// Writes [regions, 3, size, size]. Every region has an area and an image that exists.
void roi_clip_preprocess(const std::vector<ImageView>& images, const std::vector<Region>& regions,
                         const PreprocessOptions& options, int threads, void* out);

}  // namespace dpad
