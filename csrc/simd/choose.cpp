#include "simd/choose.h"

#include <cstdlib>
#include <stdexcept>

namespace dpad {

namespace {

constexpr struct {
  SimdLevel level;
  const char* name;
} kLevels[] = {
    {SimdLevel::scalar, "scalar"}, {SimdLevel::avx2, "avx2"}, {SimdLevel::avx512, "avx512"},
    {SimdLevel::amx, "amx"},       {SimdLevel::neon, "neon"}, {SimdLevel::i8mm, "i8mm"},
};

}  // namespace

const char* simd_level_name(SimdLevel level) {
  for (const auto& known : kLevels)
    if (known.level == level) return known.name;
  return "unknown";
}

SimdLevel simd_level_named(const char* what, const std::string& name) {
  if (name == "best") return kBestLevel;
  std::string names = "best";
  for (const auto& known : kLevels) {
    if (name == known.name) return known.level;
    names += std::string(", ") + known.name;
  }
  throw std::invalid_argument(std::string(what) + " must be one of " + names + ", got '" + name + "'");
}

SimdLevel allowed_simd_level() {
  // Where the initialiser throws, the next call runs it again.
  static const SimdLevel allowed = [] {
    const char* const value = std::getenv("DPAD_FAST_SIMD");
    return simd_level_named("DPAD_FAST_SIMD", value == nullptr || *value == '\0' ? "best" : value);
  }();
  return allowed;
}

}  // namespace dpad
