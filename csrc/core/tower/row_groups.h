// How the rows of a tower's layer are shared out among threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/base/parallel.h"

namespace dpad {

constexpr int64_t ceil_div(int64_t value, int64_t step) { return (value + step - 1) / step; }

// One thread processes a group of rows from the norm to the last product. So intermediate values stay in the
// second-level cache, and each group reads the weights once. A group is whole tiles of `tile` rows, at most
// `group_rows` rows. Where there are tiles enough, every thread gets the same number of groups, and no group is more
// than a tile larger than another, so that threads end together.
class RowGroups {
 public:
  RowGroups(int64_t rows, int64_t tile, int64_t group_rows, int threads)
      : rows_(rows), tile_(tile), tiles_(ceil_div(rows, tile)) {
    const int64_t workers = parallel_slots(tiles_, threads);
    count_ = std::min(tiles_, ceil_div(ceil_div(rows, group_rows), workers) * workers);
  }
  int64_t count() const { return count_; }
  int64_t start(int64_t group) const { return std::min(rows_, tiles_ * group / count_ * tile_); }
  int64_t size(int64_t group) const { return start(group + 1) - start(group); }

 private:
  int64_t rows_, tile_, tiles_, count_;
};

}  // namespace dpad
