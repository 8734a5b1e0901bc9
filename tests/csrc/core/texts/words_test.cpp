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

TEST(words_are_numbered) {
  dpad::WordTable table;
  CHECK(table.learn("red"));
  CHECK(table.learn("cat"));
  CHECK(!table.learn("red"));
  std::vector<size_t> numbers{9};
  Words unknown;
  CHECK(table.look_up({"cat", "red", "cat"}, numbers, unknown));
  CHECK((numbers == std::vector<size_t>{9, 1, 0, 1}));
  CHECK(!table.look_up({"dog", "cat", "big", "dog"}, numbers, unknown));
  CHECK((unknown == Words{"dog", "big", "dog"}));
  CHECK(table.size() == 2);
  table.clear();
  CHECK(table.size() == 0);
  CHECK(!table.look_up({"cat"}, numbers, unknown));
  CHECK(table.learn("cat"));
}

TEST(words_stay_where_they_are) {
  dpad::WordTable table;
  for (size_t i = 0; i < 5000; ++i) CHECK(table.learn("w" + std::to_string(i)));
  for (size_t i = 0; i < 5000; ++i) {
    const std::string word = "w" + std::to_string(i);
    std::vector<size_t> numbers;
    Words unknown;
    CHECK(table.look_up({word}, numbers, unknown));
    CHECK(numbers == std::vector<size_t>{i});
  }
}

}  // namespace
