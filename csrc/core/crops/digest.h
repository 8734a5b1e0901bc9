// A digest of a picture's content: whether two pictures are the same one. 128 bits, not for use against an adversary.
#pragma once

#include <array>
#include <cstdint>

namespace dpad {

// The digest of `count` pixels of three bytes that lie `step` bytes apart: 3, or 4 where a fourth byte pads and is not
// looked at. Equal pixels give equal digests whatever the step.
std::array<uint64_t, 2> digest_pixels(const uint8_t* pixels, int64_t count, int64_t step);

}  // namespace dpad
