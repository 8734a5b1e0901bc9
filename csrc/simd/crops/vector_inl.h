// The vector code, written with 256-bit vectors and compiled once for AVX2 and once for AVX-512 (whose 32 registers
// and masked moves the compiler then uses). Each including file has its own copies: hence the unnamed namespace.
//
// A weight w of 23 bits is split into w = high * 65536 + low. Two pixels p, q of 8 bits meet their weights in
//   sum of low parts:  pmaddwd over (p, q) widened to 16 bits   -> 32-bit sums, exact modulo 2^32
//   sum of high parts: pmaddubsw over (p, q) as bytes           -> 16-bit sums, exact modulo 2^16
// pmaddubsw would saturate beyond 32767, but two neighbouring high parts add up to at most 128: 255 * 128 = 32640. The
// total is (high sum << 16) + low sum modulo 2^32, and as the true sum fits into 32 bits this is exact.
#pragma once

#include <immintrin.h>

#include "simd/crops/scalar.h"

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

// Additions that the compiler cannot regroup: GCC otherwise turns the sum over a window into a tree, forms all products
// before it adds the first, and parks them in memory for want of registers.
inline void add_16(__m256i& sum, __m256i product) { asm("vpaddw %1, %0, %0" : "+v"(sum) : "v"(product)); }
inline void add_32(__m256i& sum, __m256i product) { asm("vpaddd %1, %0, %0" : "+v"(sum) : "v"(product)); }

// Sums of 16 lanes: high parts in 16 bits, low parts in 32 bits for the lanes that unpacklo and unpackhi give.
struct Sums {
  __m256i high = _mm256_setzero_si256();
  __m256i low_a = _mm256_set1_epi32(1 << (kPrecisionBits - 1));
  __m256i low_b = _mm256_set1_epi32(1 << (kPrecisionBits - 1));

  void add(__m256i bytes, const Weights& weights) {
    const __m256i zero = _mm256_setzero_si256();
    add_16(high, _mm256_maddubs_epi16(bytes, weights.high));
    add_32(low_a, _mm256_madd_epi16(_mm256_unpacklo_epi8(bytes, zero), weights.low));
    add_32(low_b, _mm256_madd_epi16(_mm256_unpackhi_epi8(bytes, zero), weights.low));
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

// Copies the last pixels of each row, with zeros after them, so that no later byte of the source is read. The copy has
// the layout of the source, with rows 32 bytes and planes 8 bytes apart.
template <Layout layout>
inline void copy_edge(const Strip& strip, int64_t x, uint8_t (&edge)[kStripRows][32]) {
  constexpr int64_t step = layout == Layout::rgb ? 3 : (layout == Layout::rgbx ? 4 : 1);
  std::memset(edge, 0, sizeof(edge));
  const int64_t count = strip.columns - x < 8 ? strip.columns - x : 8;
  if (count <= 0) return;
  const size_t bytes = static_cast<size_t>(count * step - (layout == Layout::rgbx ? 1 : 0));
  for (int r = 0; r < kStripRows; ++r)
    for (int c = 0; c < (layout == Layout::planar ? kChannels : 1); ++c)
      std::memcpy(edge[r] + 8 * c, strip.rows[r] + x * step + c * strip.plane_stride, bytes);
}

// Columns x to x + 7 of 16 rows as four blocks of kPairBytes. A block holds two columns of 48 lanes in three vectors:
// rows 0-3, 4-7 and 8-11 as R G B and a gap; red, green and blue of rows 12-15 fill the gaps of the first, second and
// third vector.
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
  for (int pair = 0; pair < 4; ++pair) {
    const __m256i last = group[pair][3];
    const __m256i bytes[3] = {_mm256_blend_epi16(group[pair][0], _mm256_slli_epi64(last, 48), 0x88),
                              _mm256_blend_epi16(group[pair][1], _mm256_slli_epi64(last, 32), 0x88),
                              _mm256_blend_epi16(group[pair][2], _mm256_slli_epi64(last, 16), 0x88)};
    for (int v = 0; v < 3; ++v) store(block + pair * kPairBytes + v * 32, bytes[v]);
  }
}

// Where the result in each byte of a column belongs: channel * kStripRows + row.
constexpr int lane_at(int byte) {
  const int v = byte < 32 ? (byte / 8) % 2 : 2;
  const int lane = byte < 32 ? byte % 8 + 8 * (byte / 16) : byte - 32;
  return lane % 4 == 3 ? v * kStripRows + 12 + lane / 4 : lane % 4 * kStripRows + 4 * v + lane / 4;
}

struct LaneTable {
  int at[48] = {};
  constexpr LaneTable() {
    for (int byte = 0; byte < 48; ++byte) at[byte] = lane_at(byte);
  }
};
constexpr LaneTable kLanes;

// One output column of 16 rows and 3 channels: 48 bytes in the order of kLanes. `fixed` is the number of pairs where it
// is known at compile time, else 0.
template <int fixed>
inline void across_column(const uint8_t* window, const PairWeight* weights, int64_t pairs, uint8_t* stage) {
  Sums sums[3];
  const int64_t count = fixed != 0 ? fixed : pairs;
#pragma GCC unroll 8
  for (int64_t p = 0; p < count; ++p) {
    const Weights weight = broadcast(weights[p]);
    const uint8_t* at = window + p * kPairBytes;
    for (int v = 0; v < 3; ++v) sums[v].add(load(at + v * 32), weight);
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
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out[kLanes.at[16 * third + i]] + x), lanes[i]);
    }
  }
}

template <Layout layout, int fixed>
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
        copy_edge<layout>(strip, x, edge);
        load_block<layout>(edges, 0, 8, block);
      }
      filled += 4;
    }
    across_column<fixed>(ring + (first - base) * kPairBytes, windows.weights + i * windows.pairs, windows.pairs,
                         stage + 64 * (i % 16));
    if (i % 16 == 15 || i + 1 == windows.count) write_columns(stage, i / 16 * 16, out);
  }
}

template <Layout layout>
void across_layout(const Strip& strip, const Windows& windows, uint8_t* const* out, uint8_t* scratch) {
  switch (windows.pairs) {  // the lengths that photographs and boxes in them have; constant, so that loops unroll
    case 3:
      return across_strip<layout, 3>(strip, windows, out, scratch);
    case 4:
      return across_strip<layout, 4>(strip, windows, out, scratch);
    case 5:
      return across_strip<layout, 5>(strip, windows, out, scratch);
    case 6:
      return across_strip<layout, 6>(strip, windows, out, scratch);
    case 7:
      return across_strip<layout, 7>(strip, windows, out, scratch);
    default:
      return across_strip<layout, 0>(strip, windows, out, scratch);
  }
}

void across(const Strip& strip, const Windows& windows, uint8_t* const* out, uint8_t* scratch) {
  if (strip.layout == Layout::rgb) return across_layout<Layout::rgb>(strip, windows, out, scratch);
  if (strip.layout == Layout::rgbx) return across_layout<Layout::rgbx>(strip, windows, out, scratch);
  across_layout<Layout::planar>(strip, windows, out, scratch);
}

template <int fixed>
inline void down_32(const uint8_t* const* rows, const PairWeight* weights, int64_t pairs, int64_t x, uint8_t* out) {
  Sums a, b;
  const int64_t count = fixed != 0 ? fixed : pairs;
#pragma GCC unroll 8
  for (int64_t p = 0; p < count; ++p) {
    const Weights weight = broadcast(weights[p]);
    const __m256i upper = load(rows[2 * p] + x), lower = load(rows[2 * p + 1] + x);
    const __m256i first = _mm256_unpacklo_epi8(upper, lower), second = _mm256_unpackhi_epi8(upper, lower);
    a.add(first, weight);
    b.add(second, weight);
  }
  store(out + x, _mm256_packus_epi16(a.words(), b.words()));
}

// The last vector is shifted back over bytes that are already there; short rows go byte by byte.
template <int fixed>
void down_row(const uint8_t* const* rows, const PairWeight* weights, int64_t pairs, int64_t n, uint8_t* out) {
  int64_t x = 0;
  for (; x + 32 <= n; x += 32) down_32<fixed>(rows, weights, pairs, x, out);
  if (x == n) return;
  if (n >= 32) return down_32<fixed>(rows, weights, pairs, n - 32, out);
  for (; x < n; ++x) out[x] = down_byte(rows, weights, pairs, x);
}

void down(const uint8_t* const* rows, const PairWeight* weights, int64_t pairs, int64_t n, uint8_t* out) {
  switch (pairs) {
    case 3:
      return down_row<3>(rows, weights, pairs, n, out);
    case 4:
      return down_row<4>(rows, weights, pairs, n, out);
    case 5:
      return down_row<5>(rows, weights, pairs, n, out);
    case 6:
      return down_row<6>(rows, weights, pairs, n, out);
    default:
      return down_row<0>(rows, weights, pairs, n, out);
  }
}

struct VectorScale {
  explicit VectorScale(const Normalisation& scale)
      : mean(_mm256_set1_ps(scale.mean)),
        std(_mm256_set1_ps(scale.std)),
        inverse(_mm256_set1_ps(scale.inverse)),
        inverse_error(_mm256_set1_ps(scale.inverse_error)) {}

  // Eight bytes; `multiply` as in Normalisation.
  template <bool multiply>
  __m256 operator()(const uint8_t* in) const {
    const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(in)));
    const __m256 value = _mm256_cvtepi32_ps(bytes);
    if constexpr (multiply) {
      const __m256 scaled =
          _mm256_fmadd_ps(value, _mm256_set1_ps(kInverse255), _mm256_mul_ps(value, _mm256_set1_ps(kInverse255Error)));
      const __m256 centred = _mm256_sub_ps(scaled, mean);
      return _mm256_fmadd_ps(centred, inverse, _mm256_mul_ps(centred, inverse_error));
    } else {
      return _mm256_div_ps(_mm256_sub_ps(_mm256_div_ps(value, _mm256_set1_ps(255.0f)), mean), std);
    }
  }

  __m256 mean, std, inverse, inverse_error;
};

inline void store_8(float* out, __m256 values) { _mm256_storeu_ps(out, values); }

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

inline void store_8(BFloat16* out, __m256 values) {
  const __m256i bits = _mm256_castps_si256(values);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  const __m256i words = _mm256_srli_epi32(rounded, 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_castsi256_si128(packed));
}

inline void store_8(Float16* out, __m256 values) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT));
}

// Whole vectors, the last one shifted back over values that are already there; short rows through a copy.
template <bool multiply, typename T>
inline void convert(const uint8_t* in, int64_t n, const Normalisation& scale, T* out) {
  const VectorScale normalise(scale);
  if (n < 8) {
    uint8_t bytes[8] = {};
    T values[8];
    std::memcpy(bytes, in, static_cast<size_t>(n));
    store_8(values, normalise.operator()<multiply>(bytes));
    std::memcpy(out, values, static_cast<size_t>(n) * sizeof(T));
    return;
  }
  for (int64_t i = 0; i + 8 <= n; i += 8) store_8(out + i, normalise.operator()<multiply>(in + i));
  if (n % 8 != 0) store_8(out + n - 8, normalise.operator()<multiply>(in + n - 8));
}

void to_float32(const uint8_t* in, int64_t n, const Normalisation& scale, float* out) {
  scale.multiply ? convert<true>(in, n, scale, out) : convert<false>(in, n, scale, out);
}

void to_bfloat16(const uint8_t* in, int64_t n, const Normalisation& scale, uint16_t* out) {
  auto* to = reinterpret_cast<BFloat16*>(out);
  scale.multiply ? convert<true>(in, n, scale, to) : convert<false>(in, n, scale, to);
}

void to_float16(const uint8_t* in, int64_t n, const Normalisation& scale, uint16_t* out) {
  auto* to = reinterpret_cast<Float16*>(out);
  scale.multiply ? convert<true>(in, n, scale, to) : convert<false>(in, n, scale, to);
}

}  // namespace

}  // namespace dpad
