// Plain C++: what the vector kernels are tested against, and what runs where there are none.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "simd/tower_kernels.h"

namespace dpad {
namespace {

float quantise(const float* x, int64_t k, int16_t* out, int64_t stride) {
  const int64_t blocks = (k + kBlock16 - 1) / kBlock16;
  float largest = 0.0f, norm = 0.0f;
  bool finite = true;
  for (int64_t b = 0; b < blocks; ++b) {
    float squares = 0.0f;
    for (int64_t i = b * kBlock16; i < std::min(k, (b + 1) * kBlock16); ++i) {
      squares += x[i] * x[i];
      largest = std::max(largest, std::fabs(x[i]));
    }
    finite = finite && std::isfinite(squares);
    norm = std::max(norm, squares);
  }
  norm = std::sqrt(norm);
  const bool empty = !finite || norm < 1e-18f;
  const float scale = empty ? 0.0f : std::min(kBlockNorm / norm, kLargest16 / largest);
  for (int64_t i = 0; i < blocks * kBlock16; ++i) {
    const float value = empty || i >= k ? 0.0f : std::nearbyint(x[i] * scale);
    out[i / kBlock16 * stride + i % kBlock16] =
        static_cast<int16_t>(std::min(kLargest16, std::max(-kLargest16, value)));
  }
  if (!finite) return std::numeric_limits<float>::quiet_NaN();
  return empty ? 0.0f : 1.0f / scale;
}

void layer_norm(const float* x, const float* weight, const float* bias, int64_t k, float eps, float* y) {
  double sum = 0.0, squares = 0.0;
  for (int64_t i = 0; i < k; ++i) sum += x[i];
  const double mean = sum / static_cast<double>(k);
  for (int64_t i = 0; i < k; ++i) squares += (x[i] - mean) * (x[i] - mean);
  const float inverse = static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(k) + eps));
  for (int64_t i = 0; i < k; ++i) y[i] = (x[i] - static_cast<float>(mean)) * inverse * weight[i] + bias[i];
}

void arrange(const float* x, int64_t k, float* out, int64_t stride) {
  const int64_t blocks = (k + kBlock32 - 1) / kBlock32;
  for (int64_t i = 0; i < blocks * kBlock32; ++i) out[i / kBlock32 * stride + i % kBlock32] = i < k ? x[i] : 0.0f;
}

void block16(const int16_t* a, const int16_t* panel, int64_t rows, bool first, float* sums, const float*, int64_t) {
  for (int64_t r = 0; r < rows; ++r, a += kBlock16) {
    int32_t exact[kPanel] = {};
    for (int64_t i = 0; i < kBlock16 / 2; ++i) {
      const int32_t even = a[2 * i], odd = a[2 * i + 1];
      const int16_t* pairs = panel + i * kPanel * 2;
      for (int64_t c = 0; c < kPanel; ++c) exact[c] += even * pairs[2 * c] + odd * pairs[2 * c + 1];
    }
    float* row = sums + r * kPanel;
    for (int64_t c = 0; c < kPanel; ++c) row[c] = (first ? 0.0f : row[c]) + static_cast<float>(exact[c]);
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

void finish(const float* sums, float row_scale, const float* scale, const float* bias, int64_t count, bool quick_gelu,
            bool add, float* out) {
  for (int64_t c = 0; c < count; ++c) {
    float value = scale == nullptr ? sums[c] : sums[c] * (row_scale * scale[c]);
    if (bias != nullptr) value += bias[c];
    if (quick_gelu) value = value / (1.0f + std::exp(-1.702f * value));
    out[c] = add ? out[c] + value : value;
  }
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

const TowerKernels kTowerScalar = {quantise, layer_norm, arrange, block16, block32, finish, attend};

bool has_tower_avx512() {
#if defined(__x86_64__) && defined(__GNUC__)
  static const bool found = [] {
    const char* wish = std::getenv("DPAD_FAST_SIMD");
    if (wish != nullptr && (std::strcmp(wish, "scalar") == 0 || std::strcmp(wish, "avx2") == 0)) return false;
    __builtin_cpu_init();
    return best_simd_level() == SimdLevel::avx512 && __builtin_cpu_supports("avx512vnni") != 0 &&
           __builtin_cpu_supports("avx512dq") != 0;
  }();
  return found;
#else
  return false;
#endif
}

}  // namespace dpad
