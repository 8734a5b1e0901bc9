// The vector kernels, written with 256-bit vectors and compiled once for AVX2 and once for AVX-512 (whose 32 registers
// and masked moves the compiler then uses). Each including file has its own copies: hence the unnamed namespace.
//
// A weight w of 23 bits is split into w = high * 65536 + low. Two pixels p, q of 8 bits meet their weights in
//   sum of low parts:  pmaddwd over (p, q) widened to 16 bits   -> 32-bit sums, exact modulo 2^32
//   sum of high parts: pmaddubsw over (p, q) as bytes           -> 16-bit sums, exact modulo 2^16
// pmaddubsw would saturate beyond 32767, but two neighbouring high parts add up to at most 128: 255 * 128 = 32640. The
// total is (high sum << 16) + low sum modulo 2^32, and as the true sum fits into 32 bits this is exact.
#pragma once

#include <immintrin.h>

#include "simd/resample_scalar.h"

namespace dpad {

namespace {

struct Weights {
  __m256i low;
  __m256i high;
};

inline Weights broadcast(const PairWeight& pair) {
  int32_t low, high;
  std::memcpy(&low, pair.low, 4);
  std::memcpy(&high, pair.high, 4);
  return {_mm256_set1_epi32(low), _mm256_set1_epi32(high)};
}

inline __m256i load(const uint8_t* at) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)); }
inline void store(uint8_t* at, __m256i value) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), value); }

// Sums of 16 lanes: high parts in 16 bits, low parts in 32 bits for the lanes that unpacklo and unpackhi give.
struct Sums {
  __m256i high = _mm256_setzero_si256();
  __m256i low_a = _mm256_set1_epi32(1 << (kPrecisionBits - 1));
  __m256i low_b = _mm256_set1_epi32(1 << (kPrecisionBits - 1));

  void add(__m256i bytes, __m256i words_a, __m256i words_b, const Weights& weights) {
    high = _mm256_add_epi16(high, _mm256_maddubs_epi16(bytes, weights.high));
    low_a = _mm256_add_epi32(low_a, _mm256_madd_epi16(words_a, weights.low));
    low_b = _mm256_add_epi32(low_b, _mm256_madd_epi16(words_b, weights.low));
  }

  // Rounded to integers of 16 bits, in the order of the bytes.
  __m256i words() const {
    const __m256i zero = _mm256_setzero_si256();
    const __m256i a = _mm256_add_epi32(low_a, _mm256_unpacklo_epi16(zero, high));
    const __m256i b = _mm256_add_epi32(low_b, _mm256_unpackhi_epi16(zero, high));
    return _mm256_packs_epi32(_mm256_srai_epi32(a, kPrecisionBits), _mm256_srai_epi32(b, kPrecisionBits));
  }
};

// Eight pixels from column x of a row, as [R0 R1 G0 G1 B0 B1 - - R2 R3 ...]: neighbours side by side, a gap after blue.
template <Layout layout>
inline __m256i eight_pixels(const uint8_t* row, int64_t x, int64_t plane_stride) {
  if constexpr (layout == Layout::rgb) {
    const __m128i* at = reinterpret_cast<const __m128i*>(row + 3 * x);
    const __m128i* later = reinterpret_cast<const __m128i*>(row + 3 * x + 8);
    const __m256i bytes =
        _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(at)), _mm_loadu_si128(later), 1);
    return _mm256_shuffle_epi8(bytes, _mm256_setr_epi8(0, 3, 1, 4, 2, 5, -1, -1, 6, 9, 7, 10, 8, 11, -1, -1,  //
                                                       4, 7, 5, 8, 6, 9, -1, -1, 10, 13, 11, 14, 12, 15, -1, -1));
  } else if constexpr (layout == Layout::rgbx) {
    const __m128i order = _mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
    return _mm256_shuffle_epi8(load(row + 4 * x), _mm256_broadcastsi128_si256(order));
  } else {
    const __m128i r = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(row + x));
    const __m128i g = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(row + x + plane_stride));
    const __m128i b = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(row + x + 2 * plane_stride));
    const __m128i rg = _mm_unpacklo_epi16(r, g);
    const __m128i bx = _mm_unpacklo_epi16(b, _mm_setzero_si128());
    return _mm256_set_m128i(_mm_unpackhi_epi32(rg, bx), _mm_unpacklo_epi32(rg, bx));
  }
}

// The last pixels of a row, copied so that nothing behind them is read: rgbx, zeros after the last column.
inline void copy_edge(const Strip& strip, int64_t x, uint8_t (*edge)[32]) {
  std::memset(edge, 0, kStripRows * 32);
  const int64_t step = strip.layout == Layout::rgb ? 3 : (strip.layout == Layout::rgbx ? 4 : 1);
  const int64_t apart = strip.layout == Layout::planar ? strip.plane_stride : 1;
  const int64_t count = strip.columns - x < 8 ? strip.columns - x : 8;
  for (int r = 0; r < kStripRows; ++r)
    for (int64_t i = 0; i < count; ++i)
      for (int c = 0; c < kChannels; ++c) edge[r][4 * i + c] = strip.rows[r][(x + i) * step + c * apart];
}

// Columns x to x + 7 of 16 rows as four blocks of kPairBytes. A block holds two columns of 48 lanes in three vectors:
// rows 0-3, 4-7 and 8-11 as R G B and a gap; red, green and blue of rows 12-15 fill the gaps of the first, second and
// third. Each vector stands there as bytes and, for pmaddwd, as two vectors of 16-bit words.
template <Layout layout>
inline void load_block(const uint8_t* const* rows, int64_t x, int64_t plane_stride, uint8_t* block) {
  __m256i group[4][4];  // [pair of columns][four rows]
  for (int g = 0; g < 4; ++g) {
    const __m256i a = eight_pixels<layout>(rows[4 * g], x, plane_stride);
    const __m256i b = eight_pixels<layout>(rows[4 * g + 1], x, plane_stride);
    const __m256i c = eight_pixels<layout>(rows[4 * g + 2], x, plane_stride);
    const __m256i d = eight_pixels<layout>(rows[4 * g + 3], x, plane_stride);
    const __m256i ab_even = _mm256_unpacklo_epi64(a, b), ab_odd = _mm256_unpackhi_epi64(a, b);
    const __m256i cd_even = _mm256_unpacklo_epi64(c, d), cd_odd = _mm256_unpackhi_epi64(c, d);
    group[0][g] = _mm256_permute2x128_si256(ab_even, cd_even, 0x20);
    group[1][g] = _mm256_permute2x128_si256(ab_odd, cd_odd, 0x20);
    group[2][g] = _mm256_permute2x128_si256(ab_even, cd_even, 0x31);
    group[3][g] = _mm256_permute2x128_si256(ab_odd, cd_odd, 0x31);
  }
  const __m256i zero = _mm256_setzero_si256();
  for (int pair = 0; pair < 4; ++pair) {
    const __m256i last = group[pair][3];
    const __m256i bytes[3] = {_mm256_blend_epi16(group[pair][0], _mm256_slli_epi64(last, 48), 0x88),
                              _mm256_blend_epi16(group[pair][1], _mm256_slli_epi64(last, 32), 0x88),
                              _mm256_blend_epi16(group[pair][2], _mm256_slli_epi64(last, 16), 0x88)};
    for (int v = 0; v < 3; ++v) {
      uint8_t* at = block + pair * kPairBytes + v * 96;
      store(at, bytes[v]);
      store(at + 32, _mm256_unpacklo_epi8(bytes[v], zero));
      store(at + 64, _mm256_unpackhi_epi8(bytes[v], zero));
    }
  }
}

// The byte of `stage` below that holds lane `lane` of vector v, and where that lane's result belongs.
struct Lane {
  int channel;
  int row;
};

constexpr Lane lane_at(int byte) {
  const int v = byte < 32 ? (byte / 8) % 2 : 2;
  const int lane = byte < 32 ? byte % 8 + 8 * (byte / 16) : byte - 32;
  if (lane % 4 == 3) return {v, 12 + lane / 4};
  return {lane % 4, 4 * v + lane / 4};
}

// One output column of 16 rows and 3 channels: 48 bytes in the order of lane_at.
inline void across_column(const uint8_t* window, const PairWeight* weights, int64_t pairs, uint8_t* stage) {
  Sums sums[3];
  for (int64_t p = 0; p < pairs; ++p) {
    const Weights weight = broadcast(weights[p]);
    const uint8_t* at = window + p * kPairBytes;
    for (int v = 0; v < 3; ++v) sums[v].add(load(at + v * 96), load(at + v * 96 + 32), load(at + v * 96 + 64), weight);
  }
  store(stage, _mm256_packus_epi16(sums[0].words(), sums[1].words()));
  const __m256i third = sums[2].words();
  const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packus_epi16(third, third), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(stage + 32), _mm256_castsi256_si128(bytes));
}

// 16 rows of 16 bytes, `stride` apart, become columns: four perfect shuffles.
inline void transpose_16x16(const uint8_t* in, int64_t stride, __m128i (&out)[16]) {
  __m128i rows[16];
  for (int i = 0; i < 16; ++i) rows[i] = _mm_load_si128(reinterpret_cast<const __m128i*>(in + i * stride));
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < 8; ++i) {
      out[2 * i] = _mm_unpacklo_epi8(rows[i], rows[i + 8]);
      out[2 * i + 1] = _mm_unpackhi_epi8(rows[i], rows[i + 8]);
    }
    for (int i = 0; i < 16; ++i) rows[i] = out[i];
  }
}

inline void write_columns(const uint8_t* stage, int64_t x, uint8_t* const* out) {
  for (int third = 0; third < 3; ++third) {
    __m128i lanes[16];
    transpose_16x16(stage + 16 * third, 64, lanes);
    for (int i = 0; i < 16; ++i) {
      const Lane lane = lane_at(16 * third + i);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out[lane.channel * kStripRows + lane.row] + x), lanes[i]);
    }
  }
}

template <Layout layout>
void across_strip(const Strip& strip, const Windows& windows, uint8_t* const* out, uint8_t* scratch) {
  uint8_t* stage = scratch;
  uint8_t* ring = scratch + 16 * 64;
  const int64_t capacity = ring_pairs(windows.pairs);
  int64_t base = 0;    // the pair of columns at ring[0]
  int64_t filled = 0;  // pairs that were loaded, counted from the first column
  for (int64_t i = 0; i < windows.count; ++i) {
    const int64_t first = windows.first[i];
    while (filled < first + windows.pairs) {
      if (filled + 4 - base > capacity) {
        std::memmove(ring, ring + (first - base) * kPairBytes, static_cast<size_t>((filled - first) * kPairBytes));
        base = first;
      }
      const int64_t x = 2 * filled;
      uint8_t* block = ring + (filled - base) * kPairBytes;
      if (x + 8 < strip.columns) {
        load_block<layout>(strip.rows, x, strip.plane_stride, block);
      } else {
        uint8_t edge[kStripRows][32];
        const uint8_t* edges[kStripRows];
        for (int r = 0; r < kStripRows; ++r) edges[r] = edge[r];
        copy_edge(strip, x, edge);
        load_block<Layout::rgbx>(edges, 0, 0, block);
      }
      filled += 4;
    }
    across_column(ring + (first - base) * kPairBytes, windows.weights + i * windows.pairs, windows.pairs,
                  stage + 64 * (i % 16));
    if (i % 16 == 15 || i + 1 == windows.count) write_columns(stage, i / 16 * 16, out);
  }
}

void across(const Strip& strip, const Windows& windows, uint8_t* const* out, uint8_t* scratch) {
  if (strip.layout == Layout::rgb) return across_strip<Layout::rgb>(strip, windows, out, scratch);
  if (strip.layout == Layout::rgbx) return across_strip<Layout::rgbx>(strip, windows, out, scratch);
  across_strip<Layout::planar>(strip, windows, out, scratch);
}

inline void down_32(const uint8_t* const* rows, const PairWeight* weights, int64_t pairs, int64_t x, uint8_t* out) {
  const __m256i zero = _mm256_setzero_si256();
  Sums a, b;
  for (int64_t p = 0; p < pairs; ++p) {
    const Weights weight = broadcast(weights[p]);
    const __m256i upper = load(rows[2 * p] + x), lower = load(rows[2 * p + 1] + x);
    const __m256i first = _mm256_unpacklo_epi8(upper, lower), second = _mm256_unpackhi_epi8(upper, lower);
    a.add(first, _mm256_unpacklo_epi8(first, zero), _mm256_unpackhi_epi8(first, zero), weight);
    b.add(second, _mm256_unpacklo_epi8(second, zero), _mm256_unpackhi_epi8(second, zero), weight);
  }
  store(out + x, _mm256_packus_epi16(a.words(), b.words()));
}

void down(const uint8_t* const* rows, const PairWeight* weights, int64_t pairs, int64_t n, uint8_t* out) {
  int64_t x = 0;
  for (; x + 32 <= n; x += 32) down_32(rows, weights, pairs, x, out);
  if (x == n) return;
  if (n >= 32) return down_32(rows, weights, pairs, n - 32, out);
  for (; x < n; ++x) out[x] = down_byte(rows, weights, pairs, x);
}

inline __m256 normalised_8(const uint8_t* in, __m256 mean, __m256 std) {
  const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(in)));
  const __m256 scaled = _mm256_div_ps(_mm256_cvtepi32_ps(bytes), _mm256_set1_ps(255.0f));
  return _mm256_div_ps(_mm256_sub_ps(scaled, mean), std);
}

void to_float32(const uint8_t* in, int64_t n, const Normalisation& scale, float* out) {
  const __m256 mean = _mm256_set1_ps(scale.mean), std = _mm256_set1_ps(scale.std);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(out + i, normalised_8(in + i, mean, std));
  for (; i < n; ++i) out[i] = normalised(in[i], scale);
}

void to_bfloat16(const uint8_t* in, int64_t n, const Normalisation& scale, uint16_t* out) {
  const __m256 mean = _mm256_set1_ps(scale.mean), std = _mm256_set1_ps(scale.std);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256i bits = _mm256_castps_si256(normalised_8(in + i, mean, std));
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i words = _mm256_srli_epi32(rounded, 16);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), 0x08);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), _mm256_castsi256_si128(packed));
  }
  for (; i < n; ++i) out[i] = to_bfloat16_bits(normalised(in[i], scale));
}

void to_float16(const uint8_t* in, int64_t n, const Normalisation& scale, uint16_t* out) {
  const __m256 mean = _mm256_set1_ps(scale.mean), std = _mm256_set1_ps(scale.std);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m128i half = _mm256_cvtps_ph(normalised_8(in + i, mean, std), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), half);
  }
  for (; i < n; ++i) out[i] = to_float16_bits(normalised(in[i], scale));
}

}  // namespace

}  // namespace dpad
