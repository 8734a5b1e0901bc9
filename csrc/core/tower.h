// What a transformer tower is made of, over packed rows: no padding, and a prefix that captions share is one set of
// rows.
#pragma once

#include <cstdint>

namespace dpad {

// What happens to x W^T + b: stored; through x * sigmoid(1.702 x); or added to what the output holds.
enum class Finish { store, quick_gelu, add };

// Elements of the arrays below, as 16-bit integers (reduced) or float32.
int64_t packed_elements(int64_t columns, int64_t depth, bool reduced);
int64_t blocked_elements(int64_t rows, int64_t depth, bool reduced);

// Weights [columns, depth] to panels; scale [columns rounded up to 64].
void pack16(const float* weight, int64_t columns, int64_t depth, int16_t* packed, float* scale);
void pack32(const float* weight, int64_t columns, int64_t depth, float* packed);

// Rows x [rows, depth] for a product: [blocks, rows, 128] 16-bit integers and scale [rows], or [blocks, rows, 64]
// floats. Through a layer norm first where `weight` is given (weight and bias [depth]).
struct RowsProblem {
  int64_t rows, depth;
  const float* weight;
  const float* bias;
  float eps;
  int threads;
};
void block_rows16(const RowsProblem& p, const float* x, int16_t* blocked, float* scale);
void block_rows32(const RowsProblem& p, const float* x, float* blocked);
void layer_norm(const RowsProblem& p, const float* x, float* out);

struct LinearProblem {
  int64_t rows, columns, depth;
  const float* bias;  // [columns] or null
  Finish finish;
  int threads;
};

// out [rows, columns].
void linear16(const LinearProblem& p, const int16_t* blocked, const float* row_scale, const int16_t* packed,
              const float* scale, float* out);
void linear32(const LinearProblem& p, const float* blocked, const float* packed, float* out);

// Sequences over shared rows. Sequence s has the rows path[offsets[s]..offsets[s + 1]); its queries are the positions
// first[s]..last[s] of it, and the queries of all sequences, one after the other, are the rows of q and of out.
struct AttentionProblem {
  int64_t sequences;
  const int64_t* path;
  const int64_t* offsets;
  const int64_t* first;
  const int64_t* last;
  int64_t heads, dim;
  bool causal;
  int threads;
};

// q [Q, ...] with rows q_stride apart, k and v with rows kv_stride apart; out [Q, heads * dim].
void attention(const AttentionProblem& p, const float* q, int64_t q_stride, const float* k, const float* v,
               int64_t kv_stride, float* out);

// "avx512-vnni" or "scalar".
const char* tower_level();

}  // namespace dpad
