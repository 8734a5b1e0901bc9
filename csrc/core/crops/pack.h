// Pictures on their way to a GPU: copied into one piece of memory, without what pads their pixels.
#pragma once

#include <cstdint>
#include <vector>

namespace dpad {

// A picture of three channels of a byte, any strides, and where it is to lie without gaps: a channel's plane behind the
// other where the pixels of a channel lie side by side, one plane where all channels are the same (a stride of 0), and
// pixel by pixel otherwise.
struct PackedPicture {
  const uint8_t* from;
  int64_t height, width;
  int64_t row, pixel, channel;  // strides in bytes
  uint8_t* to;
};

// Copies all of them, on up to `threads` threads.
void pack_pictures(const std::vector<PackedPicture>& pictures, int threads);

}  // namespace dpad
