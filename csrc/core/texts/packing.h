// Token sequences packed without padding, where the prefixes that sequences share are one set of rows; why that is
// exact is said in dpad_fast/clip/tower/packing.py.
#pragma once

#include <cstdint>
#include <vector>

namespace dpad {

struct Tokens {
  const int64_t* begin;
  const int64_t* end;
  int64_t size() const { return end - begin; }
};

// Sequences of at least one token, one behind the other.
class Sequences {
 public:
  // Behind it `tokens` is the last sequence. Throws std::invalid_argument where it would be empty.
  void close();

  std::vector<int64_t> tokens;
  int64_t count() const { return static_cast<int64_t>(starts_.size()) - 1; }
  Tokens operator[](int64_t i) const { return {tokens.data() + starts_[i], tokens.data() + starts_[i + 1]}; }

 private:
  std::vector<int64_t> starts_{0};
};

// Which token of a sequence is read: what is behind it does not matter, and is cut.
enum class Read {
  last,     // nothing is cut
  token,    // the first one with a given id; without one it is the sequence's first
  largest,  // the first one of the largest id
};

// How many tokens of a sequence stay.
int64_t cut_length(Tokens sequence, Read read, int64_t token);

// The different ones of N sequences in lexicographic order, by number, and for each of the N where it stands in it.
struct Order {
  std::vector<int64_t> sequences, places;
};
Order in_order(const Sequences& given);

// Where pieces of at most `rows` tokens and `count` sequences begin in `order`, each of at least one; and its end.
std::vector<int64_t> cut_pieces(const Sequences& given, const std::vector<int64_t>& order, int64_t rows, int64_t count);

// S sequences packed into R rows, which K positions share: views of one piece of memory.
struct PackedTexts {
  int64_t rows, keys, sequences;
  const int64_t* tokens;     // [R]
  const int64_t* positions;  // [R]
  const int64_t* path;       // [K], the rows of each sequence in order
  const int64_t* offsets;    // [S + 1], where each sequence starts in `path`
  const int64_t* first;      // [S], the first position of each sequence with a row of its own
  const int64_t* last;       // [S], the position after its last one, which is its length

  int64_t length(int64_t s) const { return offsets[s + 1] - offsets[s]; }
  int64_t end_row(int64_t s) const { return path[offsets[s + 1] - 1]; }
};

// That memory.
struct PackedBlock {
  int64_t rows, keys, sequences;
  std::vector<int64_t> numbers;
};

// Packs sequences first..last - 1 of `order`, which is lexicographic.
PackedBlock pack_texts(const Sequences& given, const std::vector<int64_t>& order, int64_t first, int64_t last);

// Numbers that a `PackedBlock` of these sizes has. Throws std::invalid_argument where a size cannot be.
int64_t packed_numbers(int64_t rows, int64_t keys, int64_t sequences);

// Reads what `pack_texts` has made. Throws std::invalid_argument where lengths do not add up: what is written for a
// bucket follows them.
PackedTexts packed_texts(const int64_t* numbers, int64_t rows, int64_t keys, int64_t sequences);

}  // namespace dpad
