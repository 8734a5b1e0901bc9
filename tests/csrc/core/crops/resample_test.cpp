#include "core/crops/resample.h"

#include <cstring>

#include "check.h"

namespace {

using dpad::SimdLevel;

dpad::PreprocessOptions options(int64_t size, SimdLevel level = dpad::kBestLevel) {
  dpad::PreprocessOptions options{};
  options.size = size;
  options.resize = dpad::Resize::squash;
  options.filter = dpad::Filter::bicubic;
  options.type = dpad::PixelType::float32;
  options.level = level;
  for (int c = 0; c < dpad::kChannels; ++c) options.mean[c] = 0.5f, options.std[c] = 0.25f;
  return options;
}

dpad::ImageView rgb(const std::vector<uint8_t>& pixels, int64_t height, int64_t width) {
  return {pixels.data(), height, width, dpad::Layout::rgb, 3 * width, 0};
}

std::vector<uint8_t> pattern(size_t count) {
  std::vector<uint8_t> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<uint8_t>(i * i * 13 + i * 7);
  return bytes;
}

}  // namespace

TEST(a_crop_of_the_output_size_is_copied_and_normalised) {
  const std::vector<uint8_t> pixels = pattern(3 * 20 * 30);
  std::vector<float> out(3 * 8 * 8);
  dpad::roi_clip_preprocess({rgb(pixels, 20, 30)}, {{0, 5, 6, 13, 14}}, options(8), 1, out.data());
  for (size_t c = 0; c < 3; ++c)
    for (size_t y = 0; y < 8; ++y)
      for (size_t x = 0; x < 8; ++x) {
        const uint8_t byte = pixels[((y + 6) * 30 + x + 5) * 3 + c];
        CHECK(out[(c * 8 + y) * 8 + x] == (static_cast<float>(byte * (1 / 255.0)) - 0.5f) / 0.25f);
      }
}

TEST(one_colour_stays_and_what_is_outside_is_black) {
  const std::vector<uint8_t> white(3 * 9 * 9, 255);
  std::vector<float> out(2 * 3 * 16 * 16);
  dpad::roi_clip_preprocess({rgb(white, 9, 9)}, {{0, 0, 0, 9, 9}, {0, 9, 9, 20, 20}}, options(16), 2, out.data());
  for (size_t i = 0; i < out.size(); ++i) CHECK(out[i] == (i < out.size() / 2 ? 2.0f : -2.0f));
}

TEST(layouts_levels_and_threads_give_the_same_bytes) {
  constexpr int64_t kHeight = 50, kWidth = 61;
  const std::vector<uint8_t> pixels = pattern(3 * kHeight * kWidth);
  std::vector<uint8_t> padded, planar(pixels.size());
  for (size_t i = 0; i < pixels.size() / 3; ++i) {
    for (size_t c = 0; c < 3; ++c) {
      padded.push_back(pixels[3 * i + c]);
      planar[c * kHeight * kWidth + i] = pixels[3 * i + c];
    }
    padded.push_back(static_cast<uint8_t>(i));
  }
  const dpad::ImageView views[] = {
      rgb(pixels, kHeight, kWidth),
      {padded.data(), kHeight, kWidth, dpad::Layout::rgbx, 4 * kWidth, 0},
      {planar.data(), kHeight, kWidth, dpad::Layout::planar, kWidth, kHeight * kWidth},
  };
  const std::vector<dpad::Region> regions{{0, 0, 0, kWidth, kHeight}, {0, -4, 3, 40, 70}};
  std::vector<float> expected(2 * 3 * 33 * 33), out(expected.size());
  dpad::roi_clip_preprocess({views[0]}, regions, options(33, SimdLevel::scalar), 1, expected.data());
  for (const auto& view : views)
    for (const SimdLevel level : {SimdLevel::scalar, SimdLevel::avx2, SimdLevel::avx512})
      for (const int threads : {1, 3}) {
        dpad::roi_clip_preprocess({view}, regions, options(33, level), threads, out.data());
        CHECK(std::memcmp(out.data(), expected.data(), out.size() * sizeof(float)) == 0);
      }
}
