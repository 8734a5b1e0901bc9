#include "simd/crops/scalar.h"

namespace dpad {

namespace {

int64_t column_offset(const Strip& strip, int64_t column, int channel) {
  if (strip.layout == Layout::planar) return column + channel * strip.plane_stride;
  return column * (strip.layout == Layout::rgb ? 3 : 4) + channel;
}

uint8_t across_byte(const Strip& strip, const uint8_t* row, const PairWeight* weights, int64_t pairs, int64_t start,
                    int channel) {
  uint32_t sum = 0;
  for (int64_t tap = 0; tap < 2 * pairs; ++tap) {
    const int64_t column = start + tap;
    if (column >= strip.columns) break;  // the window is padded with weights of 0
    sum += static_cast<uint32_t>(weight_of(weights[tap / 2], static_cast<int>(tap % 2))) *
           row[column_offset(strip, column, channel)];
  }
  return rounded_byte(sum);
}

void across(const Strip& strip, const Windows& windows, uint8_t* const* out, uint8_t*) {
  for (int channel = 0; channel < kChannels; ++channel)
    for (int r = 0; r < kStripRows; ++r)
      for (int64_t i = 0; i < windows.count; ++i)
        out[channel * kStripRows + r][i] = across_byte(strip, strip.rows[r], windows.weights + i * windows.pairs,
                                                       windows.pairs, 2 * windows.first[i], channel);
}

void down(const uint8_t* const* rows, const PairWeight* weights, int64_t pairs, int64_t n, uint8_t* out) {
  for (int64_t x = 0; x < n; ++x) out[x] = down_byte(rows, weights, pairs, x);
}

void to_float32(const uint8_t* in, int64_t n, const Normalisation& scale, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = normalised(in[i], scale);
}

void to_bfloat16(const uint8_t* in, int64_t n, const Normalisation& scale, uint16_t* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = to_bfloat16_bits(normalised(in[i], scale));
}

void to_float16(const uint8_t* in, int64_t n, const Normalisation& scale, uint16_t* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = to_float16_bits(normalised(in[i], scale));
}

}  // namespace

const CropTable kCropScalar = {SimdLevel::scalar, across, down, to_float32, to_bfloat16, to_float16};

}  // namespace dpad
