// The instruction sets that this processor has and the operating system lets a process use.
#pragma once

namespace dpad {

// All false where the processor is neither an x86-64 nor a 64-bit Arm.
struct CpuFeatures {
  bool popcnt = false, bmi2 = false, avx2 = false, fma = false, f16c = false;
  bool avx512 = false;  // F, BW and VL, all three
  bool avx512dq = false, avx512vnni = false, avx512vpopcntdq = false, avx512vbmi = false, avx512vbmi2 = false;
  bool neon = false;  // every 64-bit Arm
  bool i8mm = false;  // products of 8-bit matrices
};

// Constant for the life of the process.
const CpuFeatures& cpu_features();

// Whether AMX's tiles of 8-bit integers are there. Asking claims them for the process, so ask only where they are
// wanted.
bool claim_amx();

}  // namespace dpad
