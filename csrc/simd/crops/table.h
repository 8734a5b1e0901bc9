// The inner loops of crop, resize and normalisation. Every level gives the same bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd/choose.h"

namespace dpad {

// Weights of two neighbouring source pixels, in Pillow's fixed point with 22 fractional bits: high * 65536 + low.
// `low` is signed, so that a multiply of 16-bit pairs takes it as it is; `high` is then at most 127 in size (a weight
// is below 1.2), so that a multiply of 8-bit pairs takes it, and stands here twice to be loaded as 32 bits. Sums of the
// high halves may wrap at 16 bits: only their lower half survives the shift into a 32-bit sum that is known to fit.
struct PairWeight {
  int16_t low[2];
  int8_t high[4];
};

// Up to this many rows are taken through the horizontal pass together.
constexpr int kStripRows = 16;
constexpr int kChannels = 3;

enum class Layout { rgb, rgbx, planar };

// Rows of the source, all in the image. A pixel takes 3 bytes (rgb), 4 of which the last is ignored (rgbx), or one in
// each of three planes (planar). Nothing outside of the `columns` pixels of a row is read.
struct Strip {
  Layout layout;
  const uint8_t* rows[kStripRows];  // the first column that any output needs, in the first plane
  int64_t plane_stride;             // planar only
  int64_t columns;                  // up to the last that any output needs
};

// Weights for `count` outputs, `pairs` for each. first[i] is where the window of output i starts: for the horizontal
// pass in pairs of columns of the strip, for the vertical pass as a row of the image.
struct Windows {
  int64_t count;
  int64_t pairs;
  const int32_t* first;
  const PairWeight* weights;  // [count, pairs]
};

// (x / 255 - mean) / std, with a float32 rounding after each step. inverse + inverse_error is 1 / std to 48 bits. The
// product with both, rounded once, equals the quotient except in rare cases. `multiply` says that none of the 256
// values of a byte is such a case, so that vector code may multiply instead of dividing.
struct Normalisation {
  float mean;
  float std;
  float inverse;
  float inverse_error;
  bool multiply;
};

Normalisation make_normalisation(float mean, float std);

struct CropTable {
  SimdLevel level;
  // Horizontal pass over one strip. out[c * kStripRows + r] gets the `count` bytes of channel c in row r and may be
  // written up to the next multiple of 16. `scratch` holds across_scratch(windows.pairs) bytes, aligned to 64.
  void (*across)(const Strip& strip, const Windows& windows, uint8_t* const* out, uint8_t* scratch);
  // Vertical pass for one output row of n bytes: rows[2 * pairs], all n bytes long. Writes exactly n bytes.
  void (*down)(const uint8_t* const* rows, const PairWeight* weights, int64_t pairs, int64_t n, uint8_t* out);
  void (*to_float32)(const uint8_t* in, int64_t n, const Normalisation& scale, float* out);
  void (*to_bfloat16)(const uint8_t* in, int64_t n, const Normalisation& scale, uint16_t* out);
  void (*to_float16)(const uint8_t* in, int64_t n, const Normalisation& scale, uint16_t* out);
};

// Columns in the ring of the horizontal pass, and the bytes that two columns of a strip take there.
constexpr int64_t kPairBytes = 3 * 32;
constexpr int64_t ring_pairs(int64_t pairs) { return (2 * pairs > 64 ? 2 * pairs : 64) + 8; }
constexpr int64_t across_scratch(int64_t pairs) { return ring_pairs(pairs) * kPairBytes + 16 * 64; }

extern const CropTable kCropScalar;
#if defined(__x86_64__)
extern const CropTable kCropAvx2;
extern const CropTable kCropAvx512;
#endif

// The best table that choose.h allows, of a level up to `limit`. Tests compare levels by their limit.
const CropTable& crop_table(SimdLevel limit = kBestLevel);

}  // namespace dpad
