#include "core/texts/packing.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>

namespace dpad {

namespace {

bool before(Tokens one, Tokens other) {
  return std::lexicographical_compare(one.begin, one.end, other.begin, other.end);
}

bool same(Tokens one, Tokens other) { return std::equal(one.begin, one.end, other.begin, other.end); }

// How many tokens a sequence shares with the one before it. Its last one is never shared: it is read.
int64_t shared_prefix(Tokens previous, Tokens sequence) {
  const int64_t most = std::min(previous.size(), sequence.size() - 1);
  return std::mismatch(sequence.begin, sequence.begin + most, previous.begin).first - sequence.begin;
}

}  // namespace

void Sequences::close() {
  if (static_cast<int64_t>(tokens.size()) == starts_.back())
    throw std::invalid_argument("rows[" + std::to_string(count()) + "] must hold at least one token");
  starts_.push_back(static_cast<int64_t>(tokens.size()));
}

int64_t cut_length(Tokens sequence, Read read, int64_t token) {
  if (read == Read::last) return sequence.size();
  const int64_t* found = read == Read::largest ? std::max_element(sequence.begin, sequence.end)
                                               : std::find(sequence.begin, sequence.end, token);
  return found == sequence.end ? std::min<int64_t>(1, sequence.size()) : found - sequence.begin + 1;
}

Order in_order(const Sequences& given) {
  std::vector<int64_t> sorted(static_cast<size_t>(given.count()));
  std::iota(sorted.begin(), sorted.end(), int64_t{0});
  std::sort(sorted.begin(), sorted.end(), [&](int64_t i, int64_t j) { return before(given[i], given[j]); });
  Order order{{}, std::vector<int64_t>(sorted.size())};
  for (const int64_t i : sorted) {
    if (order.sequences.empty() || !same(given[order.sequences.back()], given[i])) order.sequences.push_back(i);
    order.places[static_cast<size_t>(i)] = static_cast<int64_t>(order.sequences.size()) - 1;
  }
  return order;
}

std::vector<int64_t> cut_pieces(const Sequences& given, const std::vector<int64_t>& order, int64_t rows,
                                int64_t count) {
  std::vector<int64_t> starts{0};
  int64_t used = 0;
  for (int64_t i = 0; i < static_cast<int64_t>(order.size()); ++i) {
    const int64_t size = given[order[i]].size();
    if (i > starts.back() && (used + size > rows || i - starts.back() == count)) {
      starts.push_back(i);
      used = 0;
    }
    used += size;
  }
  if (!order.empty()) starts.push_back(static_cast<int64_t>(order.size()));
  return starts;
}

PackedBlock pack_texts(const Sequences& given, const std::vector<int64_t>& order, int64_t first, int64_t last) {
  std::vector<int64_t> shared;
  PackedBlock block{0, 0, last - first, {}};
  for (int64_t i = first; i < last; ++i) {
    const Tokens sequence = given[order[i]];
    shared.push_back(i == first ? 0 : shared_prefix(given[order[i - 1]], sequence));
    block.keys += sequence.size();
    block.rows += sequence.size() - shared.back();
  }
  block.numbers.resize(static_cast<size_t>(packed_numbers(block.rows, block.keys, block.sequences)));
  int64_t* tokens = block.numbers.data();
  int64_t* positions = tokens + block.rows;
  int64_t* path = positions + block.rows;
  int64_t* offsets = path + block.keys;
  int64_t* firsts = offsets + block.sequences + 1;
  int64_t* lasts = firsts + block.sequences;
  int64_t row = 0, key = 0, previous = 0;  // where the sequence before begins in `path`
  for (int64_t s = 0; s < block.sequences; ++s) {
    const Tokens sequence = given[order[first + s]];
    offsets[s] = key;
    for (int64_t at = 0; at < sequence.size(); ++at) {
      path[key + at] = at < shared[s] ? path[previous + at] : row;
      if (at < shared[s]) continue;
      tokens[row] = sequence.begin[at];
      positions[row++] = at;
    }
    firsts[s] = shared[s];
    lasts[s] = sequence.size();
    previous = key;
    key += sequence.size();
  }
  offsets[block.sequences] = key;
  return block;
}

int64_t packed_numbers(int64_t rows, int64_t keys, int64_t sequences) {
  constexpr int64_t kMost = int64_t{1} << 40;
  if (sequences < 0 || rows < sequences || keys < rows || keys > kMost)
    throw std::invalid_argument("packed texts of " + std::to_string(sequences) + " sequences cannot have " +
                                std::to_string(rows) + " rows and " + std::to_string(keys) + " keys");
  return 2 * rows + keys + 3 * sequences + 1;
}

PackedTexts packed_texts(const int64_t* numbers, int64_t rows, int64_t keys, int64_t sequences) {
  packed_numbers(rows, keys, sequences);
  const int64_t* path = numbers + 2 * rows;
  const int64_t* offsets = path + keys;
  const int64_t* first = offsets + sequences + 1;
  const PackedTexts found{rows, keys, sequences, numbers, numbers + rows, path, offsets, first, first + sequences};
  int64_t own = 0;
  bool good = offsets[0] == 0 && offsets[sequences] == keys;
  for (int64_t s = 0; s < sequences && good; ++s) {
    good = offsets[s] < offsets[s + 1] && offsets[s + 1] <= keys;
    good = good && found.last[s] == found.length(s) && first[s] >= 0 && first[s] < found.last[s];
    own += found.last[s] - first[s];
  }
  if (!good || own != rows) throw std::invalid_argument("the lengths of packed texts do not add up to their rows");
  return found;
}

}  // namespace dpad
