// Clearing memory, through the caches or past them.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace dpad {

// From here on an output is taken not to stay in the last-level cache until it is read.
constexpr int64_t kBeyondCaches = int64_t{64} << 20;

inline void clear_bytes(uint8_t* at, int64_t bytes) {
  if (bytes > 0) std::memset(at, 0, static_cast<size_t>(bytes));
}

// Asks for lines that are about to be written.
inline void fetch_to_write(const uint8_t* at, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(at + i, 1);
}

inline void clear_past_caches(uint8_t* at, int64_t bytes) {
#if defined(__SSE2__)
  constexpr int64_t kLine = 64;
  const int64_t head = static_cast<int64_t>(-reinterpret_cast<uintptr_t>(at) % kLine);
  if (bytes >= 2 * kLine) {
    clear_bytes(at, head);
    at += head, bytes -= head;
    for (; bytes >= kLine; at += kLine, bytes -= kLine)
      for (int64_t i = 0; i < kLine; i += 16) _mm_stream_si128(reinterpret_cast<__m128i*>(at + i), _mm_setzero_si128());
    _mm_sfence();  // other threads see these stores no later than the ordinary ones that follow
  }
#endif
  clear_bytes(at, bytes);
}

}  // namespace dpad
