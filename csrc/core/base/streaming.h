// Stores that bypass the caches, for outputs that are too large to stay in them until they are read.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "simd/masks/table.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace dpad {

// An output of this size is assumed not to stay in the last-level cache until it is read.
constexpr int64_t kBeyondCaches = int64_t{64} << 20;

inline void copy_or_clear(uint8_t* to, const uint8_t* from, int64_t bytes) {
  if (bytes <= 0) return;
  if (from == nullptr)
    std::memset(to, 0, static_cast<size_t>(bytes));
  else
    std::memcpy(to, from, static_cast<size_t>(bytes));
}

// Stores of one thread that bypass the caches. The destructor's fence orders them before the thread's later stores.
class StreamingStores {
 public:
  StreamingStores() = default;
  StreamingStores(const StreamingStores&) = delete;
  StreamingStores& operator=(const StreamingStores&) = delete;
  ~StreamingStores() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
  }

  // Copies bytes that do not overlap, or clears where `from` is null.
  void store(uint8_t* to, const uint8_t* from, int64_t bytes) const {
    constexpr int64_t kLine = 64;
    const int64_t head = std::min(static_cast<int64_t>(-reinterpret_cast<uintptr_t>(to) % kLine), bytes);
    copy_or_clear(to, from, head);
    const int64_t lines = (bytes - head) / kLine, tail = head + kLine * lines;
    mask_table().stream_lines(to + head, from == nullptr ? nullptr : from + head, lines);
    copy_or_clear(to + tail, from == nullptr ? nullptr : from + tail, bytes - tail);
  }
};

}  // namespace dpad
