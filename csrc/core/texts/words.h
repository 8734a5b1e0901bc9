// Captions of plain English to ids, word by word, as CLIP's tokenizer gives them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace dpad {

// Appends the lower-case words of `text` to `words`, views of `lower`: letters, a digit, an ending such as 's, or other
// characters. False where the text is tokenised as a whole: it is not printable ASCII, has a "<", with which special
// tokens begin, or a word of more than `longest` characters.
bool split_words(std::string_view text, size_t longest, std::string& lower, std::vector<std::string_view>& words);

// Remembers the ids of words. For one thread at a time.
class WordTable {
 public:
  // Keeps the ids that a word got first.
  void learn(std::string_view word, const std::vector<int64_t>& ids);

  // Appends the ids of words to `ids`. False where one is not known; those are appended to `unknown`.
  bool look_up(const std::vector<std::string_view>& words, std::vector<int64_t>& ids,
               std::vector<std::string_view>& unknown) const;

  size_t size() const { return found_.size(); }
  void clear();

 private:
  std::deque<std::string> words_;  // which never move: the keys below are views of them
  std::vector<int64_t> ids_;
  std::unordered_map<std::string_view, std::pair<size_t, size_t>> found_;  // where a word's ids begin and end
};

}  // namespace dpad
