#include "core/crops/pack.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/base/parallel.h"
#include "simd/crops/table.h"

namespace dpad {
namespace {

// Bytes that a thread copies before it looks for more: enough to be worth a wake-up, few enough to share a photograph.
constexpr int64_t kPiece = 128 << 10;

// Two pixels of four bytes as six bytes.
uint64_t two_pixels(const uint8_t* from) {
  uint64_t both;
  std::memcpy(&both, from, sizeof(both));
  return (both & 0xFFFFFF) | (both >> 8 & 0xFFFFFF000000);
}

// Pixels of four bytes to pixels of three, four at a time; the last ones go byte by byte, since a fourth byte may lie
// outside of the picture's memory.
void without_fourth_byte(const uint8_t* from, int64_t width, uint8_t* to) {
  int64_t x = 0;
  for (; x + 4 < width; x += 4, from += 16, to += 12) {
    const uint64_t first = two_pixels(from), second = two_pixels(from + 8);
    const uint64_t eight = first | second << 48;
    const uint32_t four = static_cast<uint32_t>(second >> 16);
    std::memcpy(to, &eight, sizeof(eight));
    std::memcpy(to + 8, &four, sizeof(four));
  }
  for (; x < width; ++x, from += 4, to += kChannels) std::memcpy(to, from, kChannels);
}

void copy_line(const uint8_t* from, int64_t count, int64_t step, uint8_t* to) {
  if (step == 1) {
    std::memcpy(to, from, static_cast<size_t>(count));
    return;
  }
  for (int64_t x = 0; x < count; ++x) to[x] = from[x * step];
}

void copy_pixels(const PackedPicture& p, const uint8_t* from, uint8_t* to) {
  if (p.channel == 1 && p.pixel == kChannels) {
    std::memcpy(to, from, static_cast<size_t>(p.width * kChannels));
  } else if (p.channel == 1 && p.pixel == 4) {
    without_fourth_byte(from, p.width, to);
  } else {
    for (int64_t x = 0; x < p.width; ++x)
      for (int c = 0; c < kChannels; ++c) to[x * kChannels + c] = from[x * p.pixel + c * p.channel];
  }
}

// Rows [first, last) of a picture.
void pack_rows(const PackedPicture& p, int64_t first, int64_t last) {
  const bool planes = p.channel == 0 || (p.pixel == 1 && p.channel != 1);
  const int count = p.channel == 0 ? 1 : kChannels;
  for (int64_t y = first; y < last; ++y) {
    const uint8_t* from = p.from + y * p.row;
    if (!planes) {
      copy_pixels(p, from, p.to + y * p.width * kChannels);
      continue;
    }
    for (int c = 0; c < count; ++c)
      copy_line(from + c * p.channel, p.width, p.pixel, p.to + (c * p.height + y) * p.width);
  }
}

}  // namespace

void pack_pictures(const std::vector<PackedPicture>& pictures, int threads) {
  std::vector<std::pair<size_t, int64_t>> pieces;  // a picture, and its first row
  const auto rows_of = [](const PackedPicture& p) {
    return std::max<int64_t>(1, kPiece / std::max<int64_t>(1, p.width * kChannels));
  };
  for (size_t i = 0; i < pictures.size(); ++i)
    for (int64_t y = 0; y < pictures[i].height; y += rows_of(pictures[i])) pieces.emplace_back(i, y);
  parallel_for(static_cast<int64_t>(pieces.size()), threads, [&](int64_t item, int) {
    const auto& [i, first] = pieces[static_cast<size_t>(item)];
    const PackedPicture& p = pictures[i];
    pack_rows(p, first, std::min(p.height, first + rows_of(p)));
  });
}

}  // namespace dpad
