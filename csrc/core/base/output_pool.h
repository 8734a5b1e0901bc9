// Memory for large results, kept from call to call: the operating system clears every page that it hands out, which can
// cost more than computing what is written there.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dpad {

struct OutputBlock {
  uint8_t* data = nullptr;  // begins a page of 2 MiB
  size_t bytes = 0;         // whole pages of 2 MiB
  uint64_t era = 0;         // how many forks lie before it
  bool zeros = false;       // straight from the operating system, so all 0
};

// A block of at least `bytes`, its contents unknown unless `zeros` says so. Throws std::bad_alloc.
OutputBlock take_output(size_t bytes);
// Keeps the block for the next call where the limit allows it, and else returns it to the operating system. A block
// that a forked child has from its parent is returned, since writing to it would copy its pages.
void give_back_output(const OutputBlock& block) noexcept;

// Blocks that wait for the next call hold `kept` bytes together, never more than `limit`. Those beyond 256 MiB are
// marked as free (MADV_FREE), so that the system takes their pages where memory runs short. The limit is
// DPAD_FAST_KEEP_MB, in MiB, or an eighth of the memory but 4 GiB at most; setting it frees the blocks beyond it.
struct OutputMemory {
  size_t kept;
  size_t limit;
};
OutputMemory output_memory();
void limit_output_memory(size_t limit);

}  // namespace dpad
