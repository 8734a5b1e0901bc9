#include "core/texts/words.h"

#include "check.h"

namespace {

using Words = std::vector<std::string_view>;

std::string split(std::string_view text, size_t longest = 64) {
  std::string lower, found;
  Words words;
  if (!dpad::split_words(text, longest, lower, words)) return "no";
  for (const std::string_view word : words) found += (found.empty() ? "" : " ") + std::string(word);
  return found;
}

TEST(words_are_letters_a_digit_an_ending_or_other_characters) {
  CHECK(split("") == "");
  CHECK(split("   ") == "");
  CHECK(split("A Red  CAT") == "a red cat");
  CHECK(split("39 a1b") == "3 9 a 1 b");
  CHECK(split("it's isn't I'm we're I've she'll he'd") == "it 's isn 't i 'm we 're i 've she 'll he 'd");
  CHECK(split("'rest 'lx 'x ''s '") == "'re st ' lx ' x '' s '");
  CHECK(split("wait!!!'s (a_b-c.d)") == "wait !!!' s ( a _ b - c . d )");
}

TEST(what_is_not_plain_goes_as_a_whole) {
  CHECK(split("a <b") == "no");
  CHECK(split("a\tb") == "no");
  CHECK(split("caf\xc3\xa9") == "no");
  CHECK(split("\x7f") == "no");
  CHECK(split("abc", 3) == "abc");
  CHECK(split("abcd", 3) == "no");
  CHECK(split("!!!!", 3) == "no");
}

TEST(ids_of_known_words_are_joined) {
  dpad::WordTable table;
  table.learn("red", {5});
  table.learn("cat", {6, 7});
  table.learn("red", {9});  // what was learnt first stays
  std::vector<int64_t> ids{1};
  Words unknown;
  CHECK(table.look_up({"cat", "red", "cat"}, ids, unknown));
  CHECK((ids == std::vector<int64_t>{1, 6, 7, 5, 6, 7}));
  CHECK(!table.look_up({"dog", "cat", "big", "dog"}, ids, unknown));
  CHECK((unknown == Words{"dog", "big", "dog"}));
  CHECK(table.size() == 2);
  table.clear();
  CHECK(table.size() == 0);
  CHECK(!table.look_up({"cat"}, ids, unknown));
}

TEST(words_stay_where_they_are) {
  dpad::WordTable table;
  for (int64_t i = 0; i < 5000; ++i) table.learn("w" + std::to_string(i), {i, i + 1});
  for (int64_t i = 0; i < 5000; ++i) {
    std::vector<int64_t> ids;
    Words unknown;
    CHECK(table.look_up({"w" + std::to_string(i)}, ids, unknown));
    CHECK((ids == std::vector<int64_t>{i, i + 1}));
  }
}

}  // namespace
