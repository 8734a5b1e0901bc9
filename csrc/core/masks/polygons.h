// Polygons to bits, to bytes, to runs, or to counts against a mask without drawing. Python-free and torch-free.
#pragma once

#include <cstdint>
#include <vector>

#include "core/masks/masks.h"
#include "core/masks/rle.h"

namespace dpad {

enum class PolygonRule { coco, opencv, center };

// Coordinates beyond this are refused: every rule's arithmetic is then exact in 64 bits.
constexpr double kMaxCoordinate = 1e7;

// vertices [v, 2] of (x, y); ring r is vertices ring_starts[r]..ring_starts[r + 1], object i is rings
// object_starts[i]..object_starts[i + 1].
struct PolygonBatch {
  const double* vertices;
  const int64_t* ring_starts;
  const int64_t* object_starts;
  int64_t n;
};

// Throws std::invalid_argument where starts do not fit `vertices` and `rings`, and where a ring has too few vertices or
// a bad coordinate; the message names the object and the ring.
void check_polygons(const PolygonBatch& batch, int64_t vertices, int64_t rings);

// Fills words [n, height, words_for(width)], area [n] and box [n]. Where `zeros` says that the words are all 0 already,
// words that no polygon touches are never written.
void draw_polygons(const PolygonBatch& batch, int64_t height, int64_t width, PolygonRule rule, int threads, bool zeros,
                   uint64_t* words, int64_t* area, PixelBox* box);
// The same in bytes, 1 in a polygon and 0 elsewhere: dense [n, height, width].
void draw_polygons_dense(const PolygonBatch& batch, int64_t height, int64_t width, PolygonRule rule, int threads,
                         bool zeros, uint8_t* dense);
std::vector<Rle> polygons_to_rle(const PolygonBatch& batch, int64_t height, int64_t width, PolygonRule rule,
                                 int threads);

// Counts of object i against mask index[i] (i where index is null); `ignore` may be null, hold one mask, or one per
// mask.
void polygon_counts(const PolygonBatch& batch, PolygonRule rule, const PackedView& masks, const int64_t* index,
                    const PackedView* ignore, int threads, int64_t* intersection, int64_t* uni);

}  // namespace dpad
