#include "core/crops/digest.h"

#include <cstring>

namespace dpad {
namespace {

constexpr int kLanes = 4;
// How far ahead memory is asked for, in bytes: further than a processor looks by itself, for the products keep it busy.
// That takes a third from the time of pictures that are not in its caches.
constexpr int kAhead = 2048;
// Odd numbers with no pattern in their bits: the fractional parts of the golden ratio and of the roots of 2, 3, 5, 7.
constexpr uint64_t kFirst = 0x9E3779B97F4A7C15, kSecond = 0x6A09E667F3BCC909, kMixer = 0xBB67AE8584CAA73B;
constexpr uint64_t kSeeds[2] = {0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1};

uint64_t rotate_left(uint64_t value, int by) { return value << by | value >> (64 - by); }

uint64_t mix(uint64_t value) {
  value = (value ^ value >> 32) * kMixer;
  value = (value ^ value >> 29) * kFirst;
  return value ^ value >> 32;
}

// Two digests of 64 bits at once. For a fixed word a step is a bijection of the lane, and for a fixed lane it is one of
// the word. So a difference in one word is never lost, and differences in several words cancel with a chance of 2^-64
// in each digest.
struct Lanes {
  uint64_t one[kLanes], two[kLanes];

  Lanes() {
    for (int i = 0; i < kLanes; ++i) {
      one[i] = kSeeds[0] + static_cast<uint64_t>(i) * kMixer;
      two[i] = kSeeds[1] + static_cast<uint64_t>(i) * kMixer;
    }
  }

  void take(const uint64_t* words) {
    for (int i = 0; i < kLanes; ++i) {
      one[i] = rotate_left(one[i] ^ words[i], 29) * kFirst;
      two[i] = rotate_left(two[i] + words[i], 37) * kSecond;
    }
  }
};

uint32_t pixel(const uint8_t* p) {
  uint32_t value;
  std::memcpy(&value, p, sizeof(value));  // the byte behind the pixel is masked out
  return value & 0xFFFFFF;
}

template <int kStep>
std::array<uint64_t, 2> digest(const uint8_t* p, int64_t count) {
  Lanes lanes;
  int64_t done = 0;
  uint64_t words[kLanes];
  // The last pixel is read byte by byte: its fourth byte may lie outside of the picture's memory.
  for (; done + 2 * kLanes < count; done += 2 * kLanes, p += 2 * kLanes * kStep) {
    __builtin_prefetch(p + kAhead);  // beyond the end it does nothing
    for (int i = 0; i < kLanes; ++i)
      words[i] = pixel(p + 2 * i * kStep) | static_cast<uint64_t>(pixel(p + (2 * i + 1) * kStep)) << 32;
    lanes.take(words);
  }
  for (int i = 0; i < kLanes; ++i) words[i] = 0;
  for (int64_t i = 0; done + i < count; ++i) {
    const uint8_t* q = p + i * kStep;
    const uint64_t value = q[0] | static_cast<uint64_t>(q[1]) << 8 | static_cast<uint64_t>(q[2]) << 16;
    words[i / 2] |= value << (i % 2 * 32);
  }
  lanes.take(words);
  uint64_t one = mix(static_cast<uint64_t>(count) ^ kSeeds[0]), two = mix(static_cast<uint64_t>(count) ^ kSeeds[1]);
  for (int i = 0; i < kLanes; ++i) {
    one = mix(one + lanes.one[i]);
    two = mix(two + lanes.two[i]);
  }
  return {one, two};
}

}  // namespace

std::array<uint64_t, 2> digest_pixels(const uint8_t* pixels, int64_t count, int64_t step) {
  return step == 3 ? digest<3>(pixels, count) : digest<4>(pixels, count);
}

}  // namespace dpad
