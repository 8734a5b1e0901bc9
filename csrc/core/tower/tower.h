// The layers of a transformer tower, over packed rows: no padding, and a prefix that captions share is one set of rows.
#pragma once

#include <cstdint>

#include "simd/choose.h"

namespace dpad {

// x W^T + b is stored, or added to the output's values.
enum class Finish { store, add };

// The numbers of a layer's products: floats; 16-bit integers with a scale for every 128 of a row; or numbers in two or
// three digits of 8 bits, csrc/simd/digits/table.h.
enum class Products { float32, int16, digits2, digits3 };

// The size of packed weights: elements as 16-bit integers (reduced) or float32, and bytes as digits.
int64_t packed_elements(int64_t columns, int64_t depth, bool reduced);
int64_t digit_bytes(int64_t columns, int64_t depth, int digits);

// Weights [columns, depth] to panels; scale [columns rounded up to 64].
void pack16(const float* weight, int64_t columns, int64_t depth, int16_t* packed, float* scale);
void pack32(const float* weight, int64_t columns, int64_t depth, float* packed);
void pack_digits(const float* weight, int64_t columns, int64_t depth, int digits, int8_t* packed, float* scale);

// A layer norm of rows, or none where weight is null.
struct Norm {
  const float* weight;
  const float* bias;
  float eps;
};

// A packed linear layer. Weights of three stored digits serve products of two as well.
struct Linear {
  Products products;
  int stored_digits;  // 0 where products are not of digits
  int64_t columns, depth;
  const void* packed;
  const float* scale;  // null for floats
  const float* bias;   // [columns] or null
};

void layer_norm(const float* x, int64_t rows, int64_t depth, const Norm& norm, int threads, float* out);

// out [rows, columns] is the layer of norm(x), x [rows, depth]; `finish` says whether it is stored or added.
void linear(const float* x, int64_t rows, const Norm& norm, const Linear& layer, Finish finish, int threads,
            float* out);

// x [rows, depth] += down(quick_gelu(up(norm(x)))), some rows at a time, so that the values between the layers stay in
// the cache.
void mlp(float* x, int64_t rows, const Norm& norm, const Linear& up, const Linear& down, int threads);

// Sequences over shared rows. Sequence s has the rows path[offsets[s]..offsets[s + 1]), and its positions
// first[s]..last[s] are queries. The rows of q and of out are the queries of all sequences, one after the other.
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

// The instruction set of the products: amx where digits use it, else the one of floats and 16-bit integers.
SimdLevel tower_level();

}  // namespace dpad
