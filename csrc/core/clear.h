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

// Copies past the caches; the ranges do not overlap.
inline void copy_past_caches(uint8_t* to, const uint8_t* from, int64_t bytes) {
#if defined(__SSE2__)
  constexpr int64_t kLine = 64;
  const int64_t head = static_cast<int64_t>(-reinterpret_cast<uintptr_t>(to) % kLine);
  if (bytes >= 2 * kLine) {
    std::memcpy(to, from, static_cast<size_t>(head));
    to += head, from += head, bytes -= head;
    for (; bytes >= kLine; to += kLine, from += kLine, bytes -= kLine)
      for (int64_t i = 0; i < kLine; i += 16)
        _mm_stream_si128(reinterpret_cast<__m128i*>(to + i),
                         _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
    _mm_sfence();
  }
#endif
  if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
}

}  // namespace dpad
