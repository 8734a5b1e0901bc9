#include "core/base/streaming.h"

#include <vector>

#include "check.h"
#include "core/base/scratch.h"

TEST(streamed_bytes_are_there_and_their_neighbours_are_untouched) {
  std::vector<uint8_t> from(1000);
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<uint8_t>(i * 7 + 1);
  for (const int64_t offset : {0, 1, 63})
    for (const int64_t bytes : {0, 1, 64, 130, 777})
      for (const bool clear : {false, true}) {
        std::vector<uint8_t> to(1000, 0xEE);
        dpad::StreamingStores().store(to.data() + offset, clear ? nullptr : from.data(), bytes);
        for (int64_t i = 0; i < 1000; ++i) {
          const bool inside = i >= offset && i < offset + bytes;
          const uint8_t expected = !inside ? 0xEE : clear ? 0 : from[static_cast<size_t>(i - offset)];
          CHECK(to[static_cast<size_t>(i)] == expected);
        }
      }
}

TEST(scratch_starts_a_cache_line) {
  for (const int64_t count : {1, 3, 1000}) {
    const dpad::Scratch<float> scratch(count);
    CHECK(reinterpret_cast<uintptr_t>(scratch.get()) % 64 == 0);
    scratch.get()[count - 1] = 1.0f;
  }
}
