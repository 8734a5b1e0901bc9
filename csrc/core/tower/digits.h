// Linear layers of a tower whose rows and weights are numbers in digits: csrc/simd/digits/table.h.
#pragma once

#include "core/tower/tower.h"

namespace dpad {

// out [rows, columns] is the layer of norm(x), x [rows, depth]; `quick_gelu` then applies x * sigmoid(1.702 x).
void digit_linear(const float* x, int64_t rows, const Norm& norm, const Linear& layer, Finish finish, bool quick_gelu,
                  int threads, float* out);

// x [rows, depth] += down(quick_gelu(up(norm(x)))).
void digit_mlp(float* x, int64_t rows, const Norm& norm, const Linear& up, const Linear& down, int threads);

}  // namespace dpad
