// Captions of plain English as CLIP's tokenizer splits them, and a table of their words.
#pragma once

#include <cstddef>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace dpad {

// Appends the lower-case words of `text` to `words`, views of `lower`: letters, a digit, an ending such as 's, or other
// characters. False where the text is tokenised as a whole: it is not printable ASCII, has a "<", with which special
// tokens begin, or a word of more than `longest` characters.
bool split_words(std::string_view text, size_t longest, std::string& lower, std::vector<std::string_view>& words);

// Numbers words in the order in which they are learnt. For one thread at a time.
class WordTable {
 public:
  // False where the word has a number already.
  bool learn(std::string_view word);

  // Appends the numbers of words to `numbers`. False where one has none; those words are appended to `unknown`.
  bool look_up(const std::vector<std::string_view>& words, std::vector<size_t>& numbers,
               std::vector<std::string_view>& unknown) const;

  size_t size() const { return numbers_.size(); }
  void clear();

 private:
  std::deque<std::string> words_;  // which never move: the keys below are views of them
  std::unordered_map<std::string_view, size_t> numbers_;
};

}  // namespace dpad
