// Products of numbers in digits, on AMX's tiles or Arm's I8MM. The elements of a row or column are integers of two or
// three digits of base 256, each digit from -128 to 127, times one float. They multiply digits without rounding.
//
// Two digits (16 bits) take three products of digits; three (24 bits, as in a float32) take eight, all but that of the
// two lowest digits. The omitted products are smaller than the rounding to digits. A tile does sixteen times the
// multiply-adds of a float32 FMA in the same time, so even eight give twice the speed of float32 at its exactness.
// SMMLA does eight times as many, so there two digits are faster than float32 and three are not.
#pragma once

#include <cstdint>

#include "simd/choose.h"

namespace dpad {

constexpr int64_t kDigitRows = 16;     // rows of a block
constexpr int64_t kDigitColumns = 16;  // columns of a panel
constexpr int64_t kDigitStep = 64;     // depth of a tile
constexpr int64_t kTileBytes = 1024;
// Elements of a row that share a scale.
constexpr int64_t kDigitDepth = 768;
// The largest integers of two and three digits, less a margin for rounding.
constexpr float kLargestDigits[4] = {0.0f, 0.0f, 32639.0f, 8355700.0f};
// With two digits, a sum of products divided by 256 is held in 32 bits. By Cauchy and Schwarz it fits where both norms
// are at most this.
constexpr float kDigitNorm = 700000.0f;
// A row with a smaller norm counts as zeros.
constexpr float kNothingInDigits = 1e-18f;

// Rows times one panel of columns, over one block of the depth.
//
// a: blocks of kDigitRows rows, a_stride bytes apart; in a block, for each step and each digit, the highest first, a
// tile [16 rows, 64]. panel: for each step, panel_step bytes apart, and each digit a tile
// [64 / together, 16 columns, together]; it may have a digit more than is used. A sum is divided by 256 (two digits) or
// 65536 (three), multiplied by row_scale and column_scale, and bias (may be null) is added. `add` then adds the value
// in `out`, and `quick_gelu` applies x * sigmoid(1.702 x). Only the first `columns` columns are stored.
struct DigitProduct {
  const int8_t* a;
  int64_t a_stride;
  const int8_t* panel;
  int64_t panel_step;
  int64_t steps, rows, columns;
  const float* row_scale;
  const float* column_scale;
  const float* bias;
  bool add, quick_gelu;
  float* out;
  int64_t out_stride;
  // The panel of the next product, to be prefetched; it has as many steps. May be null.
  const int8_t* next_panel;
};

struct DigitTable {
  SimdLevel level;
  // How many elements of a column lie together in a panel: as many as one instruction adds up.
  int64_t together;
  // One row of at most kDigitDepth floats to digits. The same digit of 64 elements lies together; the next digit of
  // them follows after `digit_stride` bytes, the next 64 elements after `step_stride` bytes. Zeros fill the last 64.
  // Returns the value of an integer 1: 0 where all are zeros, NaN where an element is not finite.
  float (*to_digits)(const float* x, int64_t count, int digits, int8_t* out, int64_t digit_stride, int64_t step_stride);
  // Around calls of `multiply` on one thread.
  void (*begin)();
  void (*end)();
  void (*multiply)(const DigitProduct& product, int digits);
};

extern const DigitTable kDigitScalar;
#if defined(DPAD_FAST_AMX)
extern const DigitTable kDigitAmx;
#endif
#if defined(DPAD_FAST_I8MM)
extern const DigitTable kDigitI8mm;
#endif

// The best table that choose.h allows.
const DigitTable& digit_table();
// The best one up to a limit too; for tests.
const DigitTable& digit_table(SimdLevel limit);

}  // namespace dpad
