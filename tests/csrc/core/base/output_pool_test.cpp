#include "core/base/output_pool.h"

#include "check.h"

namespace {

constexpr size_t kPage = size_t{2} << 20;

}  // namespace

TEST(a_block_is_whole_pages_and_is_kept_for_the_next_call) {
  dpad::limit_output_memory(8 * kPage);
  const dpad::OutputBlock first = dpad::take_output(3 * kPage - 5);
  CHECK(first.bytes == 3 * kPage);
  CHECK(reinterpret_cast<uintptr_t>(first.data) % kPage == 0);
  first.data[0] = first.data[3 * kPage - 6] = 1;
  dpad::give_back_output(first);
  CHECK(dpad::output_memory().kept == 3 * kPage);
  const dpad::OutputBlock again = dpad::take_output(2 * kPage);
  CHECK(again.data == first.data);
  CHECK(!again.zeros);
  CHECK(dpad::output_memory().kept == 0);
  dpad::give_back_output(again);
}

TEST(a_block_more_than_twice_as_large_is_not_lent) {
  dpad::limit_output_memory(8 * kPage);
  const dpad::OutputBlock large = dpad::take_output(5 * kPage);
  dpad::give_back_output(large);
  const dpad::OutputBlock small = dpad::take_output(1);
  CHECK(small.bytes == kPage);
  CHECK(small.data != large.data);
  dpad::give_back_output(small);
}

TEST(no_more_is_kept_than_the_limit) {
  dpad::limit_output_memory(2 * kPage);
  const dpad::OutputBlock block = dpad::take_output(3 * kPage);
  dpad::give_back_output(block);
  CHECK(dpad::output_memory().kept <= 2 * kPage);
  dpad::limit_output_memory(0);
  CHECK(dpad::output_memory().kept == 0);
  CHECK(dpad::output_memory().limit == 0);
}
