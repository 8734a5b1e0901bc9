#include "core/rewards/discriminative.h"

#include <cmath>
#include <cstring>
#include <limits>

namespace dpad {
namespace {

// Partial sums: one for each float of an AVX-512 register. The order of addition is fixed, so that a caption scores the
// same in any batch.
constexpr int kLanes = 16;

float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

struct Half {
  uint16_t bits;
};
struct BFloat {
  uint16_t bits;
};

float load(float value) { return value; }
float load(double value) { return static_cast<float>(value); }
float load(BFloat value) { return from_bits(static_cast<uint32_t>(value.bits) << 16); }
float load(Half value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  const uint32_t magnitude_bits = value.bits & 0x7FFFu;
  if (magnitude_bits >= 0x7C00u) return from_bits(sign | 0x7F800000u | (magnitude_bits & 0x3FFu) << 13);
  // Scaling by 2^112 moves the exponent's bias from 15 to 127 and is exact for subnormals too.
  const float magnitude = from_bits(magnitude_bits << 13) * 0x1p112f;
  return sign != 0 ? -magnitude : magnitude;
}

struct Dots {
  float text_text = 0, roi_roi = 0, aoi_aoi = 0, text_roi = 0, text_aoi = 0;
};

template <typename T>
Dots dots_of(const T* text, const T* roi, const T* aoi, int64_t d) {
  float tt[kLanes] = {}, rr[kLanes] = {}, aa[kLanes] = {}, tr[kLanes] = {}, ta[kLanes] = {};
  int64_t j = 0;
  for (; j + kLanes <= d; j += kLanes) {
    for (int k = 0; k < kLanes; ++k) {
      const float t = load(text[j + k]), r = load(roi[j + k]), a = load(aoi[j + k]);
      tt[k] += t * t;
      rr[k] += r * r;
      aa[k] += a * a;
      tr[k] += t * r;
      ta[k] += t * a;
    }
  }
  for (int k = 0; j < d; ++j, ++k) {
    const float t = load(text[j]), r = load(roi[j]), a = load(aoi[j]);
    tt[k] += t * t;
    rr[k] += r * r;
    aa[k] += a * a;
    tr[k] += t * r;
    ta[k] += t * a;
  }
  Dots sum;
  for (int k = 0; k < kLanes; ++k) {
    sum.text_text += tt[k];
    sum.roi_roi += rr[k];
    sum.aoi_aoi += aa[k];
    sum.text_roi += tr[k];
    sum.text_aoi += ta[k];
  }
  return sum;
}

float cosine(float dot, float left, float right) {
  const float norm = std::sqrt(left) * std::sqrt(right);
  return norm == 0.0f ? 0.0f : dot / norm;
}

float shaped(const DiscriminativeProblem& p, float s1, float s2) {
  if (!std::isfinite(s1) || !std::isfinite(s2)) return 0.0f;
  const float delta = s1 - s2;
  switch (p.shape) {
    case RewardShape::binary:
      return s1 > s2 ? 1.0f : 0.0f;
    case RewardShape::released:
      return delta > 0.0f ? s1 * delta : 0.0f;
    case RewardShape::margin:
      return delta > 0.0f ? delta : 0.0f;
    case RewardShape::sigmoid:
      return 1.0f / (1.0f + std::exp(-p.alpha * delta));
    case RewardShape::roi_threshold:
      return s1 > p.tau ? 1.0f : 0.0f;
  }
  return 0.0f;
}

template <typename T>
int64_t run(const DiscriminativeProblem& p, const T* text, const T* roi, const T* aoi, float* reward, float* s1,
            float* s2) {
  for (int64_t i = 0; i < p.n; ++i) {
    const int64_t row = p.row_index != nullptr ? p.row_index[i] : i;
    if (row < -1 || row >= p.m) return i;
    if (row < 0) {
      s1[i] = s2[i] = std::numeric_limits<float>::quiet_NaN();
    } else {
      const Dots dots = dots_of(text + i * p.d, roi + row * p.d, aoi + row * p.d, p.d);
      s1[i] = cosine(dots.text_roi, dots.text_text, dots.roi_roi);
      s2[i] = cosine(dots.text_aoi, dots.text_text, dots.aoi_aoi);
    }
    reward[i] = shaped(p, s1[i], s2[i]);
  }
  return -1;
}

template <typename T>
const T* as(const void* pointer) {
  return static_cast<const T*>(pointer);
}

}  // namespace

int64_t discriminative_reward(const DiscriminativeProblem& p, EmbeddingType type, const void* text, const void* roi,
                              const void* aoi, float* reward, float* s1, float* s2) {
  switch (type) {
    case EmbeddingType::float16:
      return run(p, as<Half>(text), as<Half>(roi), as<Half>(aoi), reward, s1, s2);
    case EmbeddingType::bfloat16:
      return run(p, as<BFloat>(text), as<BFloat>(roi), as<BFloat>(aoi), reward, s1, s2);
    case EmbeddingType::float64:
      return run(p, as<double>(text), as<double>(roi), as<double>(aoi), reward, s1, s2);
    default:
      return run(p, as<float>(text), as<float>(roi), as<float>(aoi), reward, s1, s2);
  }
}

}  // namespace dpad
