// Helpers of the files with AVX-512 for masks, in an unnamed namespace as simd/masks/shared_inl.h says.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace dpad {
namespace {

inline __mmask8 first_lanes(int64_t n) { return static_cast<__mmask8>(n >= 8 ? 0xff : (1u << n) - 1); }

inline int64_t sum_lanes(__m512i v) { return _mm512_reduce_add_epi64(v); }

}  // namespace
}  // namespace dpad
