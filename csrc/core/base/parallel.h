// One small parallel loop over a pool that lives as long as the process.
#pragma once

#include <cstdint>
#include <functional>

namespace dpad {

// Runs body(item, slot) once for every item in [0, items), in any order. `slot` is in [0, parallel_slots(items,
// threads)) and no two bodies run with the same one at the same time, so it may index scratch memory. The caller works
// too.
//
// Never more threads than `threads`, items or processors that this process may use. Where the pool is already at work
// (a call from another Python thread, or from inside a body) the caller runs everything itself. After a fork the child
// starts its own pool when it first needs one. The first exception of a body is thrown to the caller once all have
// ended.
void parallel_for(int64_t items, int threads, const std::function<void(int64_t item, int slot)>& body);

// The number of slots that parallel_for uses at most: at least 1. Who has scratch memory for each asks once and gives
// parallel_for that many `threads`, since the processors that this process may use can become more in between.
int parallel_slots(int64_t items, int threads);

}  // namespace dpad
