#include "core/texts/words.h"

namespace dpad {

namespace {

bool is_letter(char c) { return c >= 'a' && c <= 'z'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_plain(char c) { return c >= ' ' && c <= '~' && c != '<'; }
bool is_other(char c) { return c != ' ' && !is_letter(c) && !is_digit(c); }

// The length of 's, 't, 'm, 'd, 're, 've or 'll at the beginning of `rest`; 0 where it begins otherwise.
size_t ending(std::string_view rest) {
  if (rest.size() < 2 || rest[0] != '\'') return 0;
  const std::string_view two = rest.substr(1, 2);
  if (std::string_view("stmd").find(two[0]) != std::string_view::npos) return 2;
  return two == "re" || two == "ve" || two == "ll" ? 3 : 0;
}

template <typename Belongs>
size_t run_length(std::string_view rest, Belongs belongs) {
  size_t length = 1;
  while (length < rest.size() && belongs(rest[length])) ++length;
  return length;
}

// The length of the word that `rest` begins with, which is not a space.
size_t word_length(std::string_view rest) {
  if (is_letter(rest[0])) return run_length(rest, is_letter);
  if (is_digit(rest[0])) return 1;
  if (const size_t found = ending(rest)) return found;
  return run_length(rest, is_other);
}

}  // namespace

bool split_words(std::string_view text, size_t longest, std::string& lower, std::vector<std::string_view>& words) {
  lower.resize(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (!is_plain(c)) return false;
    lower[i] = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  std::string_view rest = lower;
  while (!rest.empty()) {
    const size_t length = rest[0] == ' ' ? 1 : word_length(rest);
    if (length > longest) return false;
    if (rest[0] != ' ') words.push_back(rest.substr(0, length));
    rest.remove_prefix(length);
  }
  return true;
}

bool WordTable::learn(std::string_view word) {
  if (numbers_.count(word) != 0) return false;
  words_.emplace_back(word);
  numbers_.emplace(words_.back(), numbers_.size());
  return true;
}

bool WordTable::look_up(const std::vector<std::string_view>& words, std::vector<size_t>& numbers,
                        std::vector<std::string_view>& unknown) const {
  const size_t before = unknown.size();
  for (const std::string_view word : words) {
    const auto found = numbers_.find(word);
    if (found == numbers_.end())
      unknown.push_back(word);
    else
      numbers.push_back(found->second);
  }
  return unknown.size() == before;
}

void WordTable::clear() {
  numbers_.clear();
  words_.clear();
}

}  // namespace dpad
