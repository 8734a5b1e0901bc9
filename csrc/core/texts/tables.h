// Packed texts in tables of a fixed shape, which a captured graph of the text tower reads; see
// dpad_fast/clip/tower/fixed.py. A table is parts one behind the other, each with room for more than is in it.
#pragma once

#include <cstdint>
#include <vector>

#include "core/texts/packing.h"

namespace dpad {

// For variable-length attention. Parts: tokens, positions, last rows, paths; where queries, keys, and sequences start,
// whose room is filled with where the last one ends. Writes int64 [sum of rooms]; throws std::invalid_argument where a
// part has more than its room.
void write_variable_lengths(const PackedTexts& texts, const std::vector<int64_t>& rooms, int64_t* out);

// Where each sequence begins in bins of `width` slots, none of them across two bins, and behind them where the last one
// ends. Throws std::invalid_argument where a sequence is longer than that.
std::vector<int64_t> places_in_bins(const PackedTexts& texts, int64_t width);

// For attention in such bins. Parts: tokens, positions, last rows; of each slot its row, how many slots before it
// belong to its sequence, and at a sequence's end its number; slots of the queries, and of the last positions.
void write_bins(const PackedTexts& texts, int64_t width, const std::vector<int64_t>& rooms, int64_t* out);

}  // namespace dpad
