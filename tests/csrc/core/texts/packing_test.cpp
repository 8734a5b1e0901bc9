#include "core/texts/packing.h"

#include "check.h"

namespace {

using Numbers = std::vector<int64_t>;

dpad::Sequences sequences(const std::vector<Numbers>& rows) {
  dpad::Sequences found;
  for (const Numbers& row : rows) {
    found.tokens.insert(found.tokens.end(), row.begin(), row.end());
    found.close();
  }
  return found;
}

int64_t cut(const Numbers& row, dpad::Read read, int64_t token = 0) {
  return dpad::cut_length({row.data(), row.data() + row.size()}, read, token);
}

TEST(a_sequence_is_cut_behind_the_token_that_is_read) {
  const Numbers row{3, 9, 4, 9, 1};
  CHECK(cut(row, dpad::Read::last) == 5);
  CHECK(cut(row, dpad::Read::largest) == 2);
  CHECK(cut(row, dpad::Read::token, 4) == 3);
  CHECK(cut(row, dpad::Read::token, 1) == 5);
  CHECK(cut(row, dpad::Read::token, 7) == 1);
  CHECK(cut({}, dpad::Read::token, 7) == 0);
  CHECK(cut({}, dpad::Read::largest) == 0);
}

TEST(an_empty_sequence_is_refused) {
  dpad::Sequences found = sequences({{1}, {2, 3}});
  CHECK(found.count() == 2);
  CHECK_INVALID(found.close(), "rows[2] must hold at least one token");
}

TEST(equal_sequences_become_one_and_prefixes_come_first) {
  const dpad::Order order = dpad::in_order(sequences({{2}, {1, 5}, {1}, {2}, {1, 5}}));
  CHECK(order.sequences.size() == 3);
  CHECK(order.sequences[0] == 2);
  CHECK((order.places == Numbers{2, 1, 0, 2, 1}));
}

TEST(pieces_hold_so_many_tokens_and_sequences_but_at_least_one) {
  const dpad::Sequences given = sequences({{1, 2}, {1, 3}, {1, 4, 5}, {2}});
  const Numbers order{0, 1, 2, 3};
  CHECK((dpad::cut_pieces(given, order, 4, 9) == Numbers{0, 2, 4}));
  CHECK((dpad::cut_pieces(given, order, 1, 9) == Numbers{0, 1, 2, 3, 4}));
  CHECK((dpad::cut_pieces(given, order, 100, 3) == Numbers{0, 3, 4}));
  CHECK((dpad::cut_pieces(sequences({}), {}, 4, 4) == Numbers{0}));
}

TEST(shared_prefixes_are_packed_once) {
  const dpad::Sequences given = sequences({{1, 2, 3}, {1, 2, 3, 4}, {1, 5}, {6}});
  const dpad::PackedBlock block = dpad::pack_texts(given, {0, 1, 2, 3}, 0, 4);
  CHECK(block.rows == 6 && block.keys == 10 && block.sequences == 4);
  const Numbers expected{1, 2, 3, 4, 5,  6, 0, 1, 2, 3, 1, 0,      // tokens, positions
                         0, 1, 2, 0, 1,  2, 3, 0, 4, 5,            // path
                         0, 3, 7, 9, 10, 0, 3, 1, 0, 3, 4, 2, 1};  // offsets, first, last
  CHECK(block.numbers == expected);
}

TEST(the_last_token_is_never_shared) {
  const dpad::PackedBlock block = dpad::pack_texts(sequences({{1, 2, 3}, {1, 2}}), {0, 1}, 0, 2);
  CHECK(block.rows == 4 && block.keys == 5);
}

TEST(numbers_that_do_not_add_up_are_refused) {
  dpad::PackedBlock block = dpad::pack_texts(sequences({{1, 2, 3}, {1, 5}}), {0, 1}, 0, 2);
  const auto read = [&] { return dpad::packed_texts(block.numbers.data(), block.rows, block.keys, block.sequences); };
  CHECK(read().length(1) == 2 && read().end_row(1) == 3);
  const Numbers good = block.numbers;
  for (size_t i = 13; i < good.size(); ++i) {  // offsets, first and last
    block.numbers = good;
    block.numbers[i] += 1;
    CHECK_INVALID(read(), "do not add up");
    block.numbers[i] -= 2;
    CHECK_INVALID(read(), "do not add up");
  }
  CHECK_INVALID(dpad::packed_numbers(3, 2, 1), "cannot have 3 rows and 2 keys");
  CHECK_INVALID(dpad::packed_numbers(1, 2, 2), "2 sequences cannot have 1 rows");
  CHECK_INVALID(dpad::packed_numbers(1, int64_t{1} << 50, 1), "cannot have");
  CHECK(dpad::packed_numbers(0, 0, 0) == 1);
}

TEST(offsets_whose_differences_wrap_around_are_refused) {
  const int64_t most = INT64_MAX;
  // Each difference of the offsets 0, 2^63 - 1, 5 - 2^63, 4 is positive in 64 bits.
  const Numbers numbers{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, most, INT64_MIN + 5, 4, most - 1, 5, most - 1, most, 6, most};
  CHECK_INVALID(dpad::packed_texts(numbers.data(), 3, 4, 3), "do not add up");
}

}  // namespace
