#include "core/base/parallel.h"

#include <atomic>
#include <vector>

#include "check.h"

TEST(every_item_runs_once_and_no_slot_twice_at_a_time) {
  for (const int64_t items : {0, 1, 7, 1000})
    for (const int threads : {1, 2, 4}) {
      const int slots = dpad::parallel_slots(items, threads);
      std::vector<std::atomic<int>> runs(static_cast<size_t>(items)), in_slot(static_cast<size_t>(slots));
      std::atomic<int> shared{0};
      dpad::parallel_for(items, threads, [&](int64_t item, int slot) {
        if (slot < 0 || slot >= slots || in_slot[static_cast<size_t>(slot)].fetch_add(1) != 0) ++shared;
        ++runs[static_cast<size_t>(item)];
        --in_slot[static_cast<size_t>(slot)];
      });
      CHECK(shared == 0);
      for (const auto& count : runs) CHECK(count == 1);
    }
}

TEST(slots_are_no_more_than_items_or_threads) {
  CHECK(dpad::parallel_slots(0, 4) == 1);
  CHECK(dpad::parallel_slots(10, 1) == 1);
  CHECK(dpad::parallel_slots(10, 0) == 1);
  CHECK(dpad::parallel_slots(2, 100) <= 2);
  CHECK(dpad::parallel_slots(100, 3) <= 3);
}

TEST(the_first_exception_reaches_the_caller_and_the_next_call_works) {
  for (const int threads : {1, 2}) {
    CHECK_INVALID(dpad::parallel_for(64, threads,
                                     [](int64_t item, int) {
                                       if (item == 5) throw std::invalid_argument("item 5");
                                     }),
                  "item 5");
    std::atomic<int64_t> sum{0};
    dpad::parallel_for(64, threads, [&](int64_t item, int) { sum += item; });
    CHECK(sum == 64 * 63 / 2);
  }
}

TEST(a_call_from_inside_a_body_runs_in_its_thread) {
  std::atomic<int64_t> count{0};
  dpad::parallel_for(4, 2, [&](int64_t, int) { dpad::parallel_for(8, 2, [&](int64_t, int) { ++count; }); });
  CHECK(count == 32);
}
