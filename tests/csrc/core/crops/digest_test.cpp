#include "core/crops/digest.h"

#include <vector>

#include "check.h"

namespace {

// `count` pixels of three bytes, and the same with a fourth byte.
struct Pixels {
  std::vector<uint8_t> packed, padded;

  Pixels(size_t count, uint8_t fourth) {
    for (size_t i = 0; i < count; ++i) {
      for (size_t c = 0; c < 3; ++c) {
        packed.push_back(static_cast<uint8_t>(i * 31 + c * 101));
        padded.push_back(packed.back());
      }
      padded.push_back(fourth);
    }
  }
  std::array<uint64_t, 2> digest() const {
    return dpad::digest_pixels(packed.data(), static_cast<int64_t>(packed.size() / 3), 3);
  }
  std::array<uint64_t, 2> digest_padded() const {
    return dpad::digest_pixels(padded.data(), static_cast<int64_t>(padded.size() / 4), 4);
  }
};

}  // namespace

TEST(the_step_and_the_fourth_byte_do_not_matter) {
  for (const size_t count : {1, 7, 8, 9, 16, 17, 100}) {
    const Pixels one(count, 0), other(count, 255);
    CHECK(one.digest() == one.digest_padded());
    CHECK(one.digest() == other.digest_padded());
  }
}

TEST(any_bit_of_any_pixel_matters) {
  Pixels pixels(20, 0);
  const auto before = pixels.digest();
  for (size_t i = 0; i < pixels.packed.size(); ++i)
    for (int bit = 0; bit < 8; ++bit) {
      pixels.packed[i] ^= static_cast<uint8_t>(1 << bit);
      const auto after = pixels.digest();
      CHECK(after[0] != before[0] && after[1] != before[1]);
      pixels.packed[i] ^= static_cast<uint8_t>(1 << bit);
    }
}

TEST(black_pictures_of_different_sizes_differ) {
  const std::vector<uint8_t> black(300, 0);
  for (int64_t count = 1; count < 99; ++count)
    CHECK(dpad::digest_pixels(black.data(), count, 3) != dpad::digest_pixels(black.data(), count + 1, 3));
}
