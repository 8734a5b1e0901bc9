// Plain C++, for processors without another level; tests compare the other levels with it.
#include <algorithm>
#include <cmath>
#include <limits>

#include "simd/tower/table.h"

namespace dpad {
namespace {

// One block of `count` elements, filled up with zeros.
float quantise_block(const float* x, int64_t count, int16_t* out) {
  float largest = 0.0f, squares = 0.0f;
  for (int64_t i = 0; i < count; ++i) {
    squares += x[i] * x[i];
    largest = std::max(largest, std::fabs(x[i]));
  }
  const bool finite = std::isfinite(squares);
  const float norm = std::sqrt(squares);
  const bool empty = !finite || norm < kNothing16;
  const float by = empty ? 0.0f : std::min(kBlockNorm / norm, kLargest16 / largest);
  for (int64_t i = 0; i < kBlock16; ++i) {
    const float value = empty || i >= count ? 0.0f : std::nearbyint(x[i] * by);
    out[i] = static_cast<int16_t>(std::min(kLargest16, std::max(-kLargest16, value)));
  }
  if (!finite) return std::numeric_limits<float>::quiet_NaN();
  return empty ? 0.0f : 1.0f / by;
}

void quantise(const float* x, int64_t k, int16_t* out, int64_t stride, float* scale, int64_t scale_stride) {
  for (int64_t i = 0; i < k; i += kBlock16, out += stride, scale += scale_stride)
    *scale = quantise_block(x + i, std::min(kBlock16, k - i), out);
}

void layer_norm(const float* x, const float* weight, const float* bias, int64_t k, float eps, float* y) {
  double sum = 0.0, squares = 0.0;
  for (int64_t i = 0; i < k; ++i) sum += x[i];
  const double mean = sum / static_cast<double>(k);
  for (int64_t i = 0; i < k; ++i) squares += (x[i] - mean) * (x[i] - mean);
  const float inverse = static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(k) + eps));
  for (int64_t i = 0; i < k; ++i) y[i] = (x[i] - static_cast<float>(mean)) * inverse * weight[i] + bias[i];
}

void to_blocks(const float* x, int64_t k, float* out, int64_t stride) {
  const int64_t blocks = (k + kBlock32 - 1) / kBlock32;
  for (int64_t i = 0; i < blocks * kBlock32; ++i) out[i / kBlock32 * stride + i % kBlock32] = i < k ? x[i] : 0.0f;
}

void block16(const int16_t* a, const float* scale, const int16_t* panel, int64_t rows, bool first, float* sums,
             const float*, int64_t) {
  for (int64_t r = 0; r < rows; ++r, a += kBlock16) {
    int32_t exact[kPanel] = {};
    for (int64_t i = 0; i < kBlock16 / 2; ++i) {
      const int32_t even = a[2 * i], odd = a[2 * i + 1];
      const int16_t* pairs = panel + i * kPanel * 2;
      for (int64_t c = 0; c < kPanel; ++c) exact[c] += even * pairs[2 * c] + odd * pairs[2 * c + 1];
    }
    float* row = sums + r * kPanel;
    for (int64_t c = 0; c < kPanel; ++c) row[c] = (first ? 0.0f : row[c]) + scale[r] * static_cast<float>(exact[c]);
  }
}

void block32(const float* a, const float* panel, int64_t rows, bool first, float* sums, const float*, int64_t) {
  for (int64_t r = 0; r < rows; ++r, a += kBlock32) {
    float block[kPanel] = {};
    for (int64_t i = 0; i < kBlock32; ++i)
      for (int64_t c = 0; c < kPanel; ++c) block[c] += a[i] * panel[i * kPanel + c];
    float* row = sums + r * kPanel;
    for (int64_t c = 0; c < kPanel; ++c) row[c] = (first ? 0.0f : row[c]) + block[c];
  }
}

float quick_gelu_of(float x) { return x / (1.0f + std::exp(-1.702f * x)); }

void finish(const float* sums, const float* scale, const float* bias, int64_t count, bool quick_gelu, bool add,
            float* out) {
  for (int64_t c = 0; c < count; ++c) {
    float value = scale == nullptr ? sums[c] : sums[c] * scale[c];
    if (bias != nullptr) value += bias[c];
    if (quick_gelu) value = quick_gelu_of(value);
    out[c] = add ? out[c] + value : value;
  }
}

float finish_block16(const float* left, const float* right, const float* scale, const float* bias, int64_t count,
                     int16_t* out) {
  float block[kBlock16];
  for (int64_t c = 0; c < count; ++c) {
    const float value = (c < kPanel ? left[c] : right[c - kPanel]) * scale[c];
    block[c] = quick_gelu_of(bias == nullptr ? value : value + bias[c]);
  }
  return quantise_block(block, count, out);
}

void transpose_keys(const float* const* keys, int64_t length, int64_t dim, int64_t padded, float* keys_t) {
  for (int64_t j = 0; j < length; ++j)
    for (int64_t d = 0; d < dim; ++d) keys_t[d * padded + j] = keys[j][d];
}

void attend(const float* q, int64_t q_stride, const float* keys_t, int64_t padded, const float* const* values,
            int64_t length, int64_t dim, int64_t from, int64_t to, bool causal, float scale, float* scores, float* out,
            int64_t out_stride) {
  for (int64_t t = from; t < to; ++t, q += q_stride, out += out_stride) {
    const int64_t seen = causal ? t + 1 : length;
    std::fill_n(scores, seen, 0.0f);
    for (int64_t d = 0; d < dim; ++d)
      for (int64_t j = 0; j < seen; ++j) scores[j] += q[d] * scale * keys_t[d * padded + j];
    const float top = *std::max_element(scores, scores + seen);
    float total = 0.0f;
    for (int64_t j = 0; j < seen; ++j) total += scores[j] = std::exp(scores[j] - top);
    std::fill_n(out, dim, 0.0f);
    for (int64_t j = 0; j < seen; ++j)
      for (int64_t d = 0; d < dim; ++d) out[d] += scores[j] * values[j][d];
    for (int64_t d = 0; d < dim; ++d) out[d] /= total;
  }
}

}  // namespace

const TowerTable kTowerScalar = {SimdLevel::scalar, quantise, layer_norm,     to_blocks,      block16,
                                 block32,           finish,   finish_block16, transpose_keys, attend};

}  // namespace dpad
