// Which instruction sets this processor and operating system offer.
#pragma once

namespace dpad {

enum class SimdLevel { scalar = 0, avx2 = 1, avx512 = 2 };

// The best level that CPUID reports and the operating system saves (XCR0). Constant for the life of the process.
SimdLevel best_simd_level();

const char* simd_level_name(SimdLevel level);

}  // namespace dpad
