// AVX-512 with VNNI.
#include <algorithm>
#include <cmath>
#include <limits>

#include "simd/tower/table.h"
#include "simd/tower/vectors_avx512.h"

namespace dpad {
namespace {

constexpr int kTileRows = 6;

// Four vectors at a time, with zeros past the end. Each vector has its own sum or maximum, so that the four additions
// do not wait for each other.
struct Four {
  __m512 v[4];
};

inline Four load_four(const float* x, int64_t left) {
  if (left >= 64)
    return {{_mm512_loadu_ps(x), _mm512_loadu_ps(x + 16), _mm512_loadu_ps(x + 32), _mm512_loadu_ps(x + 48)}};
  Four four;
  for (int i = 0; i < 4; ++i) four.v[i] = _mm512_maskz_loadu_ps(first_lanes(left - 16 * i), x + 16 * i);
  return four;
}

inline __m512 total(const Four& f) {
  return _mm512_add_ps(_mm512_add_ps(f.v[0], f.v[1]), _mm512_add_ps(f.v[2], f.v[3]));
}

// A block of a row fits in eight registers: two `Four`s.
static_assert(kBlock16 == 128, "a block is two fours");

// The largest factor that the block may be multiplied by; 0 for a block of zeros, NaN where an element is not finite.
inline float block_scale(const Four& a, const Four& b) {
  Four squares, largest;
  for (int j = 0; j < 4; ++j) {
    squares.v[j] = _mm512_fmadd_ps(a.v[j], a.v[j], _mm512_mul_ps(b.v[j], b.v[j]));
    largest.v[j] = _mm512_max_ps(_mm512_abs_ps(a.v[j]), _mm512_abs_ps(b.v[j]));
  }
  const float sum = _mm512_reduce_add_ps(total(squares));
  if (!std::isfinite(sum)) return std::numeric_limits<float>::quiet_NaN();
  const float norm = std::sqrt(sum);
  if (norm < kNothing16) return 0.0f;
  const __m512 top =
      _mm512_max_ps(_mm512_max_ps(largest.v[0], largest.v[1]), _mm512_max_ps(largest.v[2], largest.v[3]));
  return std::min(kBlockNorm / norm, kLargest16 / _mm512_reduce_max_ps(top));
}

// Stores the block times `by`, rounded, or zeros where `by` is 0 or NaN. Returns the value of an integer 1.
inline float store_block(const Four& a, const Four& b, float by, int16_t* out) {
  const bool sound = by > 0.0f;
  const __m512 factor = _mm512_set1_ps(by);
  for (int j = 0; j < 4; ++j) {
    // After block_scale nothing saturates. NaNs are masked out, because their conversion to integers is arbitrary.
    const __m512i low = _mm512_cvtps_epi32(_mm512_mul_ps(a.v[j], factor));
    const __m512i high = _mm512_cvtps_epi32(_mm512_mul_ps(b.v[j], factor));
    const __mmask16 kept = sound ? static_cast<__mmask16>(0xFFFF) : static_cast<__mmask16>(0);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 16 * j), _mm512_maskz_cvtsepi32_epi16(kept, low));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 64 + 16 * j), _mm512_maskz_cvtsepi32_epi16(kept, high));
  }
  return sound ? 1.0f / by : by;
}

void quantise(const float* x, int64_t k, int16_t* out, int64_t stride, float* scale, int64_t scale_stride) {
  for (int64_t i = 0; i < k; i += kBlock16, out += stride, scale += scale_stride) {
    const Four a = load_four(x + i, k - i), b = load_four(x + i + 64, k - i - 64);
    *scale = store_block(a, b, block_scale(a, b), out);
  }
}

void to_blocks(const float* x, int64_t k, float* out, int64_t stride) {
  const int64_t blocks = (k + kBlock32 - 1) / kBlock32;
  for (int64_t i = 0; i < blocks * kBlock32; i += 16)
    _mm512_storeu_ps(out + i / kBlock32 * stride + i % kBlock32, _mm512_maskz_loadu_ps(first_lanes(k - i), x + i));
}

void layer_norm(const float* x, const float* weight, const float* bias, int64_t k, float eps, float* y) {
  Four sums{}, squares{};
  for (int64_t i = 0; i < k; i += 64) {
    const Four value = load_four(x + i, k - i);
    for (int j = 0; j < 4; ++j) sums.v[j] = _mm512_add_ps(sums.v[j], value.v[j]);
  }
  const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(total(sums)) / static_cast<float>(k));
  for (int64_t i = 0; i < k; i += 64) {
    const Four value = load_four(x + i, k - i);
    for (int j = 0; j < 4; ++j) {
      const __m512 centred = _mm512_maskz_sub_ps(first_lanes(k - i - 16 * j), value.v[j], mean);
      squares.v[j] = _mm512_fmadd_ps(centred, centred, squares.v[j]);
    }
  }
  const float variance = _mm512_reduce_add_ps(total(squares)) / static_cast<float>(k);
  const __m512 inverse = _mm512_set1_ps(1.0f / std::sqrt(variance + eps));
  for (int64_t i = 0; i < k; i += 16) {
    const __mmask16 lanes = first_lanes(k - i);
    const __m512 value = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(lanes, x + i), mean), inverse);
    _mm512_mask_storeu_ps(
        y + i, lanes,
        _mm512_fmadd_ps(value, _mm512_maskz_loadu_ps(lanes, weight + i), _mm512_maskz_loadu_ps(lanes, bias + i)));
  }
}

// The loop is in assembler because of GCC 12. With 24 accumulators it writes half of them to the stack at every step,
// for intrinsics and for one asm per instruction alike, and the loop runs at half its speed. zmm0..23 are the
// accumulators (row r, register c: 4 r + c), zmm24..27 hold a step of the panel, zmm28 holds the row's element. In a
// step, both kinds of product read four bytes of a row and 256 of the panel.
// clang-format off: it indents the strings further every time that it sees them.
#define ROW_STEP(op, at, row, c0, c1, c2, c3)                                                                      \
  "vbroadcastss " #at "*4(%[a" #row "],%[i],4), %%zmm28\n\t" op " %%zmm24, %%zmm28, %%zmm" #c0 "\n\t" op           \
  " %%zmm25, %%zmm28, %%zmm" #c1 "\n\t" op " %%zmm26, %%zmm28, %%zmm" #c2 "\n\t" op " %%zmm27, %%zmm28, %%zmm" #c3 \
  "\n\t"
#define STEP(op, at)                                                                                               \
  "vmovups " #at                                                                                                   \
  "*256(%[panel]), %%zmm24\n\t"                                                                                    \
  "vmovups " #at                                                                                                   \
  "*256+64(%[panel]), %%zmm25\n\t"                                                                                 \
  "vmovups " #at                                                                                                   \
  "*256+128(%[panel]), %%zmm26\n\t"                                                                                \
  "vmovups " #at "*256+192(%[panel]), %%zmm27\n\t" ROW_STEP(op, at, 0, 0, 1, 2, 3) ROW_STEP(op, at, 1, 4, 5, 6, 7) \
      ROW_STEP(op, at, 2, 8, 9, 10, 11) ROW_STEP(op, at, 3, 12, 13, 14, 15) ROW_STEP(op, at, 4, 16, 17, 18, 19)    \
          ROW_STEP(op, at, 5, 20, 21, 22, 23)
#define CLEAR(c0, c1, c2, c3)                    \
  "vpxord %%zmm" #c0 ", %%zmm" #c0 ", %%zmm" #c0 \
  "\n\t"                                         \
  "vpxord %%zmm" #c1 ", %%zmm" #c1 ", %%zmm" #c1 \
  "\n\t"                                         \
  "vpxord %%zmm" #c2 ", %%zmm" #c2 ", %%zmm" #c2 \
  "\n\t"                                         \
  "vpxord %%zmm" #c3 ", %%zmm" #c3 ", %%zmm" #c3 "\n\t"
#define TILE_LOOP(op)   \
  CLEAR(0, 1, 2, 3)     \
  CLEAR(4, 5, 6, 7)     \
  CLEAR(8, 9, 10, 11)   \
  CLEAR(12, 13, 14, 15) \
  CLEAR(16, 17, 18, 19) \
  CLEAR(20, 21, 22, 23) \
  "xor %[i], %[i]\n\t"                                                                                           \
  ".p2align 5\n\t"                                                                                               \
  "1:\n\t"                                                                                                       \
  "prefetcht0 (%[next_block])\n\tprefetcht0 (%[next_rows])\n\tprefetcht0 64(%[next_rows])\n\t" \
  STEP(op, 0) STEP(op, 1) STEP(op, 2) STEP(op, 3) \
  "add $1024, %[panel]\n\t" \
  "add $64, %[next_block]\n\t" \
  "add $128, %[next_rows]\n\t" \
  "add $4, %[i]\n\t" \
  "cmp $64, %[i]\n\t" \
  "jne 1b\n\t"
// How a register of sums is stored: scaled by its row (zmm24..29) or not, and added to the sums in memory or not.
#define SCALED(c, row, offset) \
  "vcvtdq2ps %%zmm" #c ", %%zmm" #c "\n\tvfmadd213ps " #offset "(%[sums]), %%zmm" #row ", %%zmm" #c "\n\t"
#define SCALED_FIRST(c, row, offset) \
  "vcvtdq2ps %%zmm" #c ", %%zmm" #c "\n\tvmulps %%zmm" #row ", %%zmm" #c ", %%zmm" #c "\n\t"
#define PLAIN(c, row, offset) "vaddps " #offset "(%[sums]), %%zmm" #c ", %%zmm" #c "\n\t"
#define PLAIN_FIRST(c, row, offset)
#define KEEP(how, c, row, offset) how(c, row, offset) "vmovups %%zmm" #c ", " #offset "(%[sums])\n\t"
#define KEEP_ROWS(how) \
  KEEP(how, 0, 24, 0) KEEP(how, 1, 24, 64) KEEP(how, 2, 24, 128) KEEP(how, 3, 24, 192) \
  KEEP(how, 4, 25, 256) KEEP(how, 5, 25, 320) KEEP(how, 6, 25, 384) KEEP(how, 7, 25, 448) \
  KEEP(how, 8, 26, 512) KEEP(how, 9, 26, 576) KEEP(how, 10, 26, 640) KEEP(how, 11, 26, 704) \
  KEEP(how, 12, 27, 768) KEEP(how, 13, 27, 832) KEEP(how, 14, 27, 896) KEEP(how, 15, 27, 960) \
  KEEP(how, 16, 28, 1024) KEEP(how, 17, 28, 1088) KEEP(how, 18, 28, 1152) KEEP(how, 19, 28, 1216) \
  KEEP(how, 20, 29, 1280) KEEP(how, 21, 29, 1344) KEEP(how, 22, 29, 1408) KEEP(how, 23, 29, 1472)
#define LOAD_SCALES \
  "vbroadcastss (%[scale]), %%zmm24\n\tvbroadcastss 4(%[scale]), %%zmm25\n\tvbroadcastss 8(%[scale]), %%zmm26\n\t" \
  "vbroadcastss 12(%[scale]), %%zmm27\n\tvbroadcastss 16(%[scale]), %%zmm28\n\tvbroadcastss 20(%[scale]), %%zmm29\n\t"
#define NO_SCALES
#define TILE_REGISTERS                                                                                                \
  "zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9", "zmm10", "zmm11", "zmm12", "zmm13", \
      "zmm14", "zmm15", "zmm16", "zmm17", "zmm18", "zmm19", "zmm20", "zmm21", "zmm22", "zmm23", "zmm24", "zmm25",     \
      "zmm26", "zmm27", "zmm28", "zmm29", "cc", "memory"
#define TILE(op, scales, how)                                                                              \
  asm volatile(TILE_LOOP(op) scales KEEP_ROWS(how)                                                         \
               : [panel] "+&r"(panel), [i] "=&r"(i), [next_block] "+&r"(next_block), [next_rows] "+&r"(next_rows)                                                         \
               : [a0] "r"(row[0]), [a1] "r"(row[1]), [a2] "r"(row[2]), [a3] "r"(row[3]), [a4] "r"(row[4]), \
                 [a5] "r"(row[5]), [scale] "r"(scale), [sums] "r"(sums)                \
               : TILE_REGISTERS)
// clang-format on

// sums [6, kPanel] += six rows times the 64 steps of a panel's block; = instead of += where `first`. Products of
// integers are first multiplied by scale [6]. Every four steps prefetch one cache line from `next_block` on and two
// from `next_rows` on.
void tile(const int16_t* const* row, const float* scale, const int16_t* panel, const char* next_block,
          const char* next_rows, bool first, float* sums) {
  int64_t i;
  if (first)
    TILE("vpdpwssd", LOAD_SCALES, SCALED_FIRST);
  else
    TILE("vpdpwssd", LOAD_SCALES, SCALED);
}

void tile(const float* const* row, const float* scale, const float* panel, const char* next_block,
          const char* next_rows, bool first, float* sums) {
  int64_t i;
  if (first)
    TILE("vfmadd231ps", NO_SCALES, PLAIN_FIRST);
  else
    TILE("vfmadd231ps", NO_SCALES, PLAIN);
}

template <typename Element>
void block(const Element* a, const float* scale, const Element* panel, int64_t rows, bool first, float* sums,
           const float* prefetch_out, int64_t prefetch_stride) {
  constexpr int64_t kBlockBytes = 64 * 4 * kPanel;
  constexpr int64_t kDepth = kBlockBytes / kPanel / static_cast<int64_t>(sizeof(Element));
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  for (int64_t t = 0; t < tiles; ++t) {
    const Element* row[kTileRows];  // the last row again past the end: `sums` has room for it
    for (int r = 0; r < kTileRows; ++r) row[r] = a + std::min(t * kTileRows + r, rows - 1) * kDepth;
    // While this tile is computed, the loop prefetches the next tile's rows, and a sixteenth of the panel's next block,
    // which lies behind this one. It does so a few lines at a time, because a core waits for at most 16 lines.
    const auto* next_rows = reinterpret_cast<const char*>(a + (t + 1) * kTileRows * kDepth);
    const auto* next_block = reinterpret_cast<const char*>(panel) + kBlockBytes + t * (kBlockBytes / 16);
    if (prefetch_out != nullptr)
      for (int64_t r = t * kTileRows; r < std::min((t + 1) * kTileRows, rows); ++r)
        __builtin_prefetch(prefetch_out + r * prefetch_stride, 1);
    tile(row, scale + t * kTileRows, panel, next_block, next_rows, first, sums + t * kTileRows * kPanel);
  }
}

void block16(const int16_t* a, const float* scale, const int16_t* panel, int64_t rows, bool first, float* sums,
             const float* prefetch_out, int64_t prefetch_stride) {
  block(a, scale, panel, rows, first, sums, prefetch_out, prefetch_stride);
}

void block32(const float* a, const float* panel, int64_t rows, bool first, float* sums, const float* prefetch_out,
             int64_t prefetch_stride) {
  block(a, static_cast<const float*>(nullptr), panel, rows, first, sums, prefetch_out, prefetch_stride);
}

static_assert(kBlock16 * sizeof(int16_t) == 256 && kBlock32 * sizeof(float) == 256, "64 steps of four bytes");
static_assert(kGemmRows % kTileRows == 0, "sums has whole tiles");
static_assert(kPanel == 64, "a tile is four registers wide");

inline __m512 scaled_and_shifted(__m512 sums, const float* scale, const float* bias, __mmask16 lanes) {
  if (scale != nullptr) sums = _mm512_mul_ps(sums, _mm512_maskz_loadu_ps(lanes, scale));
  return bias == nullptr ? sums : _mm512_add_ps(sums, _mm512_maskz_loadu_ps(lanes, bias));
}

void finish(const float* sums, const float* scale, const float* bias, int64_t count, bool quick_gelu, bool add,
            float* out) {
  for (int64_t c = 0; c < count; c += 16) {
    const __mmask16 lanes = first_lanes(count - c);
    __m512 value = _mm512_maskz_loadu_ps(lanes, sums + c);
    value =
        scaled_and_shifted(value, scale == nullptr ? nullptr : scale + c, bias == nullptr ? nullptr : bias + c, lanes);
    if (quick_gelu) value = quick_gelu_of(value);
    if (add) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(lanes, out + c));
    _mm512_mask_storeu_ps(out + c, lanes, value);
  }
}

inline Four hidden_four(const float* sums, const float* scale, const float* bias, int64_t count) {
  Four four;
  for (int j = 0; j < 4; ++j) {
    const __mmask16 lanes = first_lanes(count - 16 * j);
    const __m512 value = scaled_and_shifted(_mm512_maskz_loadu_ps(lanes, sums + 16 * j), scale + 16 * j,
                                            bias == nullptr ? nullptr : bias + 16 * j, lanes);
    four.v[j] = quick_gelu_of(value);
  }
  return four;
}

float finish_block16(const float* left, const float* right, const float* scale, const float* bias, int64_t count,
                     int16_t* out) {
  static_assert(2 * kPanel == kBlock16, "a block is two panels wide");
  const Four a = hidden_four(left, scale, bias, count);
  const Four b = hidden_four(right, scale + kPanel, bias == nullptr ? nullptr : bias + kPanel, count - kPanel);
  return store_block(a, b, block_scale(a, b), out);
}

}  // namespace

const TowerTable kTowerAvx512 = {
    SimdLevel::avx512,     quantise,     layer_norm, to_blocks, block16, block32, finish, finish_block16,
    transpose_keys_avx512, attend_avx512};

}  // namespace dpad
