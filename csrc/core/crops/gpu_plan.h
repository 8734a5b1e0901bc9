// What the GPU kernels of crop, resize and normalisation (kernels/roi_clip_preprocess.py) read of each region, worked
// out on the host.
#pragma once

#include <cstdint>
#include <vector>

#include "core/crops/resample.h"

namespace dpad {

template <typename T>
struct PerAxis {
  T x, y;
};

// uint8 pixels on a GPU. Strides are in bytes; `pixel_bytes` is 0 where a pixel may not be read in aligned words.
struct GpuImage {
  int64_t pointer;
  int64_t stride_x, stride_y, stride_c;
  int64_t width, height;
  int64_t pixel_bytes;
};

// A row of the table, 64-bit numbers only. This is its one layout: the kernels ask the extension where each number is,
// and find what belongs to y one number after what belongs to x.
struct GpuCrop {
  int64_t pointer;
  PerAxis<int64_t> stride;
  int64_t stride_c;
  PerAxis<int64_t> extent;   // pixels of the image
  PerAxis<int64_t> corner;   // of the box, which may lie outside of the image
  PerAxis<int64_t> source;   // pixels of the box
  PerAxis<int64_t> target;   // and of the box after the resize
  PerAxis<int64_t> offset;   // of the result's first pixel from the resized box's; below 0 where the result is padded
  PerAxis<double> scale;     // source / target
  PerAxis<int64_t> taps;     // the most source pixels that weigh in one output
  PerAxis<int64_t> weights;  // where the axis's [taps, size] begin among all weights
  int64_t vertical_first;
  int64_t lines;    // of the first pass: rows of the box that lie in the image, or columns where vertical_first
  int64_t between;  // where the bytes of the first pass begin, in units of 16
  int64_t pixel_bytes;
};

// What all regions together need: weights, and bytes between the passes. And what the largest one does.
struct GpuPlan {
  int64_t weights = 0;
  int64_t between = 0;
  int64_t most_lines = 0;
};

// Fills table[regions]. Every region has an area and an image that exists.
GpuPlan plan_for_gpu(const std::vector<GpuImage>& images, const std::vector<Region>& regions,
                     const ResizeOptions& options, GpuCrop* table);

}  // namespace dpad
