// How the loops over masks are split among threads.
#pragma once

#include <cstdint>

namespace dpad {

// Calls body(begin, end) over parts of 0..n; `bytes` is what one item costs to read and write.
template <typename Body>
void for_masks(int64_t n, int64_t bytes, Body&& body) {
  (void)bytes;
  if (n > 0) body(int64_t{0}, n);
}

}  // namespace dpad
