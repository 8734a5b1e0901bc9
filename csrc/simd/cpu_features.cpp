#include "simd/cpu_features.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace dpad {

#if defined(__x86_64__) && defined(__GNUC__)

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = [] {
    CpuFeatures found;
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0) {
      found.fma = (ecx & bit_FMA) != 0;
      found.f16c = (ecx & bit_F16C) != 0;
    }
    // __builtin_cpu_supports reads CPUID and XCR0 both, so an operating system that does not save zmm registers has no
    // AVX-512 here.
    __builtin_cpu_init();
    found.popcnt = __builtin_cpu_supports("popcnt") != 0;
    found.bmi2 = __builtin_cpu_supports("bmi2") != 0;
    found.avx2 = __builtin_cpu_supports("avx2") != 0;
    found.avx512 = __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
                   __builtin_cpu_supports("avx512vl") != 0;
    found.avx512dq = __builtin_cpu_supports("avx512dq") != 0;
    found.avx512vnni = __builtin_cpu_supports("avx512vnni") != 0;
    found.avx512vpopcntdq = __builtin_cpu_supports("avx512vpopcntdq") != 0;
    found.avx512vbmi = __builtin_cpu_supports("avx512vbmi") != 0;
    found.avx512vbmi2 = __builtin_cpu_supports("avx512vbmi2") != 0;
    return found;
  }();
  return features;
}

#elif defined(__aarch64__)

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = [] {
    CpuFeatures found;
    found.neon = true;  // a part of the architecture
#if defined(__linux__)
    constexpr unsigned long kI8mm = 1ul << 13;  // HWCAP2_I8MM, which older headers do not name
    found.i8mm = (getauxval(AT_HWCAP2) & kI8mm) != 0;
#endif
    return found;
  }();
  return features;
}

#else

const CpuFeatures& cpu_features() {
  static const CpuFeatures none;
  return none;
}

#endif

#if defined(__x86_64__) && defined(__GNUC__) && defined(__linux__)

bool claim_amx() {
  static const bool claimed = [] {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
    constexpr unsigned kTile = 1u << 24, kInt8 = 1u << 25;
    if ((edx & kTile) == 0 || (edx & kInt8) == 0) return false;
    // Linux lets only a process that asks use tiles. Its threads and forked children inherit the permission. Kernels
    // before 5.16 refuse.
    constexpr long kRequestPermission = 0x1023, kTileData = 18;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return claimed;
}

#else

bool claim_amx() { return false; }

#endif

}  // namespace dpad
