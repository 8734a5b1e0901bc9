#include "core/texts/tables.h"

#include "check.h"

namespace {

using Numbers = std::vector<int64_t>;

constexpr int64_t kUntouched = -7;

// 1, 2, 3 and 1, 2, 4 and 5: 5 rows, 7 keys.
struct Made {
  dpad::PackedBlock block;
  Made() {
    dpad::Sequences given;
    for (const Numbers& row : {Numbers{1, 2, 3}, {1, 2, 4}, {5}}) {
      given.tokens.insert(given.tokens.end(), row.begin(), row.end());
      given.close();
    }
    block = dpad::pack_texts(given, {0, 1, 2}, 0, 3);
  }
  dpad::PackedTexts texts() const {
    return dpad::packed_texts(block.numbers.data(), block.rows, block.keys, block.sequences);
  }
};

TEST(a_table_for_variable_lengths) {
  const Made made;
  Numbers out(38, kUntouched);
  dpad::write_variable_lengths(made.texts(), {6, 6, 4, 8, 4, 4, 5}, out.data());
  const Numbers expected{1, 2, 3, 4, 5, 0, 0, 1, 2, 2, 0, 0, 2, 3, 4, 0,  // tokens, positions, ends
                         0, 1, 2, 0, 1, 3, 4, 0, 0, 3, 4, 5, 0, 3, 6, 7, 0, 1, 2, 3, 3, kUntouched};
  CHECK(out == expected);
  CHECK_INVALID(dpad::write_variable_lengths(made.texts(), {6, 6, 4, 6, 4, 4, 5}, out.data()), "part 3 of a table");
  CHECK_INVALID(dpad::write_variable_lengths(made.texts(), {6, 6, 4, 8, 4, 4}, out.data()), "part 6 of a table");
}

TEST(no_text_lies_across_two_bins) {
  const Made made;
  CHECK((dpad::places_in_bins(made.texts(), 3) == Numbers{0, 3, 6, 7}));
  CHECK((dpad::places_in_bins(made.texts(), 4) == Numbers{0, 4, 7, 8}));
  CHECK((dpad::places_in_bins(made.texts(), 5) == Numbers{0, 5, 8, 9}));
  CHECK((dpad::places_in_bins(made.texts(), 9) == Numbers{0, 3, 6, 7}));
  CHECK_INVALID(dpad::places_in_bins(made.texts(), 2), "a text of 3 tokens does not fit a bin of 2");
}

TEST(a_table_for_bins) {
  const Made made;
  Numbers out(46, kUntouched);
  dpad::write_bins(made.texts(), 4, {5, 5, 3, 8, 8, 8, 5, 3}, out.data());
  const Numbers expected{1, 2, 3, 4, 5, 0, 1, 2, 2,         0, 2, 3, 4,  // tokens, positions, ends
                         0, 1, 2, 0, 0, 1, 3, 4,                         // rows
                         0, 1, 2, 0, 0, 1, 2, 0,                         // how many before
                         0, 0, 0, 0, 0, 0, 1, 2,                         // who asks
                         0, 1, 2, 6, 7, 2, 6, 7, kUntouched};
  CHECK(out == expected);
  CHECK_INVALID(dpad::write_bins(made.texts(), 4, {5, 5, 3, 8, 8, 7, 5, 3}, out.data()), "has room for 7, got 8");
}

}  // namespace
