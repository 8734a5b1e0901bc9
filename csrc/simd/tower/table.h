// The inner loops of a transformer tower.
//
// Reduced precision here is 16-bit integers, not bfloat16: on processors with AVX-512 VNNI but no AMX, vpdpwssd does
// two multiply-adds for every one of a float32 FMA, while vdpbf16ps does no more than the FMA. Integer sums are exact,
// so a row's result does not depend on the batch that it is in.
#pragma once

#include <cstdint>

#include "simd/choose.h"

namespace dpad {

// A panel of a weight matrix is this many output columns wide; a block is this many inputs deep.
constexpr int64_t kPanel = 64;
constexpr int64_t kBlock16 = 128;
constexpr int64_t kBlock32 = 64;  // as many bytes
constexpr int64_t kKeyStep = 32;
// Rows of the left matrix that share one panel from the first-level cache.
constexpr int64_t kGemmRows = 96;

// Within a block, |row| * |column| stays below 2^31 where both norms are at most 46340; by Cauchy and Schwarz so does
// every partial sum, and 32-bit accumulators cannot overflow. 46300 leaves room for the rounding of 128 elements.
constexpr float kBlockNorm = 46300.0f;
constexpr float kLargest16 = 32767.0f;
// A block with a smaller norm counts as zeros.
constexpr float kNothing16 = 1e-18f;

struct TowerTable {
  SimdLevel level;
  // One row of k floats to 16-bit integers. Each block of kBlock16 has its own scale, and zeros fill the last block.
  // Block b starts at out + b * stride. scale[b * scale_stride] is the value of an integer 1 in it: 0 for a block of
  // zeros, NaN where an element is not finite.
  void (*quantise)(const float* x, int64_t k, int16_t* out, int64_t stride, float* scale, int64_t scale_stride);
  // y = (x - mean) / sqrt(variance + eps) * weight + bias over k elements.
  void (*layer_norm)(const float* x, const float* weight, const float* bias, int64_t k, float eps, float* y);
  // One row of k floats in blocks of kBlock32, the last filled with zeros: block b starts at out + b * stride.
  void (*to_blocks)(const float* x, int64_t k, float* out, int64_t stride);
  // sums[r, c] += the products of one block; = instead of += where `first`. The left matrix is `rows` rows, one after
  // the other: at most kGemmRows, and sums has room for so many. The right one is a block of a panel,
  // [kBlock16 / 2, kPanel, 2] or [kBlock32, kPanel]. Integer products are multiplied by scale[r] of [kGemmRows].
  // `prefetch_out` may be null, or the cache line of the first row that is written next; the line of each further row
  // lies prefetch_stride floats behind.
  void (*block16)(const int16_t* a, const float* scale, const int16_t* panel, int64_t rows, bool first, float* sums,
                  const float* prefetch_out, int64_t prefetch_stride);
  void (*block32)(const float* a, const float* panel, int64_t rows, bool first, float* sums, const float* prefetch_out,
                  int64_t prefetch_stride);
  // out[c] = sums[c] * scale[c] + bias[c] for `count` columns; scale and bias may be null. `quick_gelu` then applies
  // x * sigmoid(1.702 x), and `add` adds the value that out holds.
  void (*finish)(const float* sums, const float* scale, const float* bias, int64_t count, bool quick_gelu, bool add,
                 float* out);
  // `finish` with quick_gelu for the first `count` of the kBlock16 columns of two panels, straight to 16-bit integers,
  // as `quantise` makes them of one block. Returns the value of an integer 1.
  float (*finish_block16)(const float* left, const float* right, const float* scale, const float* bias, int64_t count,
                          int16_t* out);
  // Copies keys[j], rows of dim floats, to the columns of keys_t [dim, padded]. padded is a multiple of kKeyStep. The
  // columns after the last key get any finite values, or stay as they were.
  void (*transpose_keys)(const float* const* keys, int64_t length, int64_t dim, int64_t padded, float* keys_t);
  // Attention of the queries [from, to) over `length` keys: keys_t [dim, padded], values[j] rows of dim floats. Query t
  // sees keys 0..t if causal. q and out have rows `q_stride` and `out_stride` apart; `padded` is a multiple of
  // kKeyStep, and `scores` holds 4 * padded floats.
  void (*attend)(const float* q, int64_t q_stride, const float* keys_t, int64_t padded, const float* const* values,
                 int64_t length, int64_t dim, int64_t from, int64_t to, bool causal, float scale, float* scores,
                 float* out, int64_t out_stride);
};

extern const TowerTable kTowerScalar;
#if defined(__x86_64__)
extern const TowerTable kTowerAvx512;
#elif defined(__aarch64__)
extern const TowerTable kTowerNeon;
#endif

// The best table that choose.h allows. Its AVX-512 includes VNNI.
const TowerTable& tower_table();
// The best one up to a limit too; for tests.
const TowerTable& tower_table(SimdLevel limit);

}  // namespace dpad
