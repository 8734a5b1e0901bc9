// How the loops over masks are split among threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/base/parallel.h"

namespace dpad {

// Calls body(begin, end) over parts of 0..n, on up to `threads` threads; `bytes` is what one item costs to read and
// write. Work that takes less than waking a thread stays with the caller.
template <typename Body>
void for_masks(int64_t n, int64_t bytes, int threads, Body&& body) {
  constexpr int64_t kWorthAThread = 1 << 20;  // some 50 microseconds, as long as waking a thread takes
  const int64_t parts = std::min<int64_t>({n, 4 * static_cast<int64_t>(threads), n * bytes / kWorthAThread});
  if (threads < 2 || parts < 2) {
    if (n > 0) body(int64_t{0}, n);
    return;
  }
  parallel_for(parts, threads, [&](int64_t part, int) { body(part * n / parts, (part + 1) * n / parts); });
}

}  // namespace dpad
