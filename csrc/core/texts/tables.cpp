#include "core/texts/tables.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace dpad {

namespace {

class Parts {
 public:
  Parts(const std::vector<int64_t>& rooms, int64_t* out) : rooms_(rooms), out_(out) {}

  // Memory for `count` numbers of the next part; the room behind them becomes `fill`.
  int64_t* next(int64_t count, int64_t fill = 0) {
    const int64_t room = part_ < rooms_.size() ? rooms_[part_] : 0;
    if (count > room)
      throw std::invalid_argument("part " + std::to_string(part_) + " of a table has room for " + std::to_string(room) +
                                  ", got " + std::to_string(count));
    int64_t* begin = out_;
    std::fill(begin + count, begin + room, fill);
    out_ += room;
    ++part_;
    return begin;
  }

  // All of the next part as zeros, of which `count` are used.
  int64_t* next_zeros(int64_t count) {
    int64_t* begin = next(count);
    std::fill(begin, begin + count, 0);
    return begin;
  }

 private:
  const std::vector<int64_t>& rooms_;
  int64_t* out_;
  size_t part_ = 0;
};

// What both tables begin with.
void write_rows(const PackedTexts& texts, Parts& parts) {
  std::copy_n(texts.tokens, texts.rows, parts.next(texts.rows));
  std::copy_n(texts.positions, texts.rows, parts.next(texts.rows));
  int64_t* ends = parts.next(texts.sequences);
  for (int64_t s = 0; s < texts.sequences; ++s) ends[s] = texts.end_row(s);
}

}  // namespace

void write_variable_lengths(const PackedTexts& texts, const std::vector<int64_t>& rooms, int64_t* out) {
  Parts parts(rooms, out);
  const int64_t starts = texts.sequences + 1;
  write_rows(texts, parts);
  std::copy_n(texts.path, texts.keys, parts.next(texts.keys));
  int64_t* queries = parts.next(starts, texts.rows);
  queries[0] = 0;
  for (int64_t s = 0; s < texts.sequences; ++s) queries[s + 1] = queries[s] + texts.last[s] - texts.first[s];
  std::copy_n(texts.offsets, starts, parts.next(starts, texts.keys));
  int64_t* asks = parts.next(starts, texts.sequences);
  for (int64_t s = 0; s < starts; ++s) asks[s] = s;
}

std::vector<int64_t> places_in_bins(const PackedTexts& texts, int64_t width) {
  std::vector<int64_t> places;
  int64_t free = 0;
  for (int64_t s = 0; s < texts.sequences; ++s) {
    const int64_t length = texts.length(s);
    if (length > width)
      throw std::invalid_argument("a text of " + std::to_string(length) + " tokens does not fit a bin of " +
                                  std::to_string(width));
    if (free % width + length > width) free += width - free % width;
    places.push_back(free);
    free += length;
  }
  places.push_back(free);
  return places;
}

void write_bins(const PackedTexts& texts, int64_t width, const std::vector<int64_t>& rooms, int64_t* out) {
  const std::vector<int64_t> places = places_in_bins(texts, width);
  const int64_t used = places.back();
  Parts parts(rooms, out);
  write_rows(texts, parts);
  int64_t* rows = parts.next_zeros(used);
  int64_t* back = parts.next_zeros(used);
  int64_t* asks = parts.next_zeros(used);
  int64_t* order = parts.next(texts.rows);
  int64_t* ends = parts.next(texts.sequences);
  for (int64_t s = 0; s < texts.sequences; ++s) {
    const int64_t place = places[s], length = texts.length(s);
    for (int64_t at = 0; at < length; ++at) {
      rows[place + at] = texts.path[texts.offsets[s] + at];
      back[place + at] = at;
      if (at >= texts.first[s]) *order++ = place + at;
    }
    ends[s] = place + length - 1;
    asks[ends[s]] = s;
  }
}

}  // namespace dpad
