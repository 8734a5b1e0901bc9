#include "core/crops/pack.h"

#include <vector>

#include "check.h"

namespace {

constexpr uint8_t kUntouched = 0xA5;

uint8_t noise(int64_t i) { return static_cast<uint8_t>(i * 131 + i / 7 * 29 + 3); }

// A picture of any strides in memory that holds nothing behind its last byte, and what has to come of it.
struct Made {
  std::vector<uint8_t> memory, expected;
  dpad::PackedPicture picture;

  Made(int64_t height, int64_t width, int64_t row, int64_t pixel, int64_t channel) {
    const int64_t bytes = (height - 1) * row + (width - 1) * pixel + 2 * channel + 1;
    for (int64_t i = 0; i < bytes; ++i) memory.push_back(noise(i));
    const bool planes = channel == 0 || (pixel == 1 && channel != 1);
    const int64_t count = channel == 0 ? 1 : 3;
    expected.assign(static_cast<size_t>(height * width * count), 0);
    for (int64_t y = 0; y < height; ++y)
      for (int64_t x = 0; x < width; ++x)
        for (int64_t c = 0; c < count; ++c) {
          const int64_t to = planes ? (c * height + y) * width + x : (y * width + x) * 3 + c;
          expected[static_cast<size_t>(to)] = memory[static_cast<size_t>(y * row + x * pixel + c * channel)];
        }
    picture = {memory.data(), height, width, row, pixel, channel, nullptr};
  }
};

void check_packed(std::vector<Made>& pictures, int threads) {
  std::vector<uint8_t> found;
  for (const Made& one : pictures) found.resize(found.size() + one.expected.size() + 1, kUntouched);
  std::vector<dpad::PackedPicture> given;
  size_t start = 0;
  for (Made& one : pictures) {
    one.picture.to = found.data() + start;
    given.push_back(one.picture);
    start += one.expected.size() + 1;
  }
  dpad::pack_pictures(given, threads);
  start = 0;
  for (const Made& one : pictures) {
    for (size_t i = 0; i < one.expected.size(); ++i) CHECK(found[start + i] == one.expected[i]);
    CHECK(found[start + one.expected.size()] == kUntouched);
    start += one.expected.size() + 1;
  }
}

}  // namespace

TEST(pictures_of_all_layouts_lie_without_gaps) {
  for (const int64_t width : {1, 2, 3, 4, 5, 7, 8, 9, 17}) {
    std::vector<Made> pictures;
    for (const int64_t height : {1, 2, 5}) {
      pictures.emplace_back(height, width, 3 * width, 3, 1);           // pixels of three bytes
      pictures.emplace_back(height, width, 4 * width + 8, 4, 1);       // of four, a crop
      pictures.emplace_back(height, width, width, 1, height * width);  // planes
      pictures.emplace_back(height, width, width, 1, 0);               // grey
      pictures.emplace_back(height, width, 4 * width, 4, 0);           // grey of another's channel
      pictures.emplace_back(height, width, 8 * width, 8, 2);           // any other
    }
    for (const int threads : {1, 3}) check_packed(pictures, threads);
  }
}

TEST(large_pictures_are_shared_among_threads) {
  std::vector<Made> pictures;
  pictures.emplace_back(300, 401, 4 * 401, 4, 1);
  pictures.emplace_back(2, 70000, 3 * 70000, 3, 1);
  check_packed(pictures, 4);
}

TEST(nothing_is_packed_of_nothing) { dpad::pack_pictures({}, 4); }
