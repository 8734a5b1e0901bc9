// The scalar loops; the vector levels use them too where a row ends in the middle of a vector.
#pragma once

#include <cstdint>
#include <cstring>

#include "simd/crops/table.h"

namespace dpad {

// Unnamed, so that each file keeps the copy that its own flags allow: the linker would otherwise take any one of them.
namespace {

constexpr int kPrecisionBits = 22;

// 1 / 255 in two floats, used as in Normalisation.
constexpr float kInverse255 = 1.0f / 255.0f;
constexpr float kInverse255Error = static_cast<float>(1.0 / 255.0 - static_cast<double>(kInverse255));

inline int32_t weight_of(const PairWeight& pair, int tap) {
  return static_cast<int32_t>(pair.high[tap]) * 65536 + pair.low[tap];
}

// The sum fits 32 bits, but partial sums may wrap around, which only unsigned arithmetic defines.
inline uint8_t rounded_byte(uint32_t sum) {
  const int32_t value = static_cast<int32_t>(sum + (1u << (kPrecisionBits - 1))) >> kPrecisionBits;
  return static_cast<uint8_t>(value < 0 ? 0 : (value > 255 ? 255 : value));
}

inline uint8_t down_byte(const uint8_t* const* rows, const PairWeight* weights, int64_t pairs, int64_t x) {
  uint32_t sum = 0;
  for (int64_t p = 0; p < pairs; ++p)
    for (int tap = 0; tap < 2; ++tap) sum += static_cast<uint32_t>(weight_of(weights[p], tap)) * rows[2 * p + tap][x];
  return rounded_byte(sum);
}

inline float normalised(uint8_t byte, const Normalisation& scale) {
  return (static_cast<float>(byte * (1 / 255.0)) - scale.mean) / scale.std;
}

inline uint32_t float_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// Rounds half to even. The value is no NaN.
inline uint16_t to_bfloat16_bits(float value) {
  const uint32_t bits = float_bits(value);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Rounds half to even; overflow gives infinity.
inline uint16_t to_float16_bits(float value) {
  const uint32_t bits = float_bits(value);
  const uint32_t sign = (bits >> 16) & 0x8000;
  const uint32_t size = bits & 0x7fffffff;
  if (size >= 0x47800000) return static_cast<uint16_t>(sign | 0x7c00);
  if (size < 0x38800000) {  // subnormal in 16 bits: adding 0.5 leaves the wanted bits at the end of the sum
    float shifted;
    std::memcpy(&shifted, &size, sizeof(shifted));
    return static_cast<uint16_t>(sign | (float_bits(shifted + 0.5f) - float_bits(0.5f)));
  }
  const uint32_t rounded = size + 0xfff + ((size >> 13) & 1) - (112u << 23);
  return static_cast<uint16_t>(sign | (rounded >> 13));
}

}  // namespace

}  // namespace dpad
