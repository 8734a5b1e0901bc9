// The only file that knows Python: it validates shapes and types, releases the GIL and calls csrc/core.
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

#include "bindings/bind.h"
#include "core/rewards/advantage.h"
#include "simd/cpu_features.h"
#include "core/rewards/discriminative.h"

namespace py = pybind11;

namespace {

// Addresses arrive as integers: torch tensors are checked in dpad_fast.ops, and this file must build without torch.
template <typename T>
T* at(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

template <typename E, size_t N>
E named(const char* argument, const std::string& name, const std::pair<const char*, E> (&known)[N]) {
  for (const auto& entry : known)
    if (name == entry.first) return entry.second;
  throw std::invalid_argument(std::string(argument) + " is unknown here: " + name);
}

constexpr std::pair<const char*, dpad::AdvantageScale> kScales[] = {
    {"std", dpad::AdvantageScale::std_dev}, {"none", dpad::AdvantageScale::none},
    {"batch", dpad::AdvantageScale::batch}, {"rloo", dpad::AdvantageScale::rloo},
    {"gdpo", dpad::AdvantageScale::gdpo},   {"gdpo-batch", dpad::AdvantageScale::gdpo_batch},
};
constexpr std::pair<const char*, dpad::MaskKind> kMaskKinds[] = {
    {"bits8", dpad::MaskKind::bits8},     {"bits16", dpad::MaskKind::bits16},   {"bits32", dpad::MaskKind::bits32},
    {"bits64", dpad::MaskKind::bits64},   {"float16", dpad::MaskKind::float16}, {"float32", dpad::MaskKind::float32},
    {"float64", dpad::MaskKind::float64},
};
constexpr std::pair<const char*, dpad::RewardShape> kRewardShapes[] = {
    {"binary", dpad::RewardShape::binary},
    {"released", dpad::RewardShape::released},
    {"margin", dpad::RewardShape::margin},
    {"sigmoid", dpad::RewardShape::sigmoid},
    {"roi-threshold", dpad::RewardShape::roi_threshold},
};
constexpr std::pair<const char*, dpad::EmbeddingType> kEmbeddingTypes[] = {
    {"float32", dpad::EmbeddingType::float32},
    {"float16", dpad::EmbeddingType::float16},
    {"bfloat16", dpad::EmbeddingType::bfloat16},
    {"float64", dpad::EmbeddingType::float64},
};

template <typename T>
void group_advantage(const dpad::AdvantageProblem& problem, std::uintptr_t rewards, std::uintptr_t weights,
                     std::uintptr_t mask, dpad::MaskKind mask_kind, int64_t tokens, std::uintptr_t scratch,
                     std::uintptr_t out) {
  T* rows = mask == 0 ? at<T>(out) : at<T>(scratch);
  dpad::group_advantage<T>(problem, at<const T>(rewards), at<const T>(weights), rows);
  if (mask != 0) dpad::spread_over_tokens<T>(rows, at<const void>(mask), mask_kind, problem.n, tokens, at<T>(out));
}

// rewards [n, f], ids [n] or 0, weights [f] or 0, mask [n, tokens] or 0 (then scratch [n]), out [n] or [n, tokens].
void py_group_advantage(bool is_double, std::uintptr_t rewards, int64_t n, int64_t f, std::uintptr_t ids,
                        int64_t group_size, const std::string& scale, double eps, std::uintptr_t weights,
                        bool keep_single, std::uintptr_t mask, const std::string& mask_kind, int64_t tokens,
                        std::uintptr_t scratch, std::uintptr_t out) {
  const dpad::AdvantageProblem problem{
      n, f, at<const int64_t>(ids), group_size, named("scale", scale, kScales), eps, keep_single};
  const dpad::MaskKind kind = named("mask_kind", mask_kind, kMaskKinds);
  const auto run = is_double ? group_advantage<double> : group_advantage<float>;
  py::gil_scoped_release release;
  run(problem, rewards, weights, mask, kind, tokens, scratch, out);
}

// text [n, d], roi and aoi [m, d], row_index [n] or 0, outputs float32 [n]; returns the first bad caption or -1.
int64_t py_discriminative_reward(const std::string& type, std::uintptr_t text, std::uintptr_t roi, std::uintptr_t aoi,
                                 std::uintptr_t row_index, int64_t n, int64_t m, int64_t d, const std::string& shape,
                                 float alpha, float tau, std::uintptr_t reward, std::uintptr_t s1, std::uintptr_t s2) {
  const dpad::DiscriminativeProblem problem{
      n, m, d, at<const int64_t>(row_index), named("shape", shape, kRewardShapes), alpha, tau};
  const dpad::EmbeddingType element = named("type", type, kEmbeddingTypes);
  py::gil_scoped_release release;
  return dpad::discriminative_reward(problem, element, at<const void>(text), at<const void>(roi), at<const void>(aoi),
                                     at<float>(reward), at<float>(s1), at<float>(s2));
}

py::dict build_info() {
  py::dict info;
#if defined(__clang__)
  info["compiler"] = "clang " __clang_version__;
#elif defined(__GNUC__)
  info["compiler"] = "gcc " __VERSION__;
#endif
#ifdef DPAD_FAST_WITH_CUDA
  info["CUDA kernels"] = "built by nvcc " DPAD_FAST_WITH_CUDA;
#else
  info["CUDA kernels"] = "not built";
#endif
#ifdef __SANITIZE_ADDRESS__
  info["sanitizers"] = "on";
#endif
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "C++ implementations behind dpad_fast.ops; call those, not this.";
  m.def("simd_level", [] { return dpad::simd_level_name(dpad::best_simd_level()); });
  m.def("build_info", &build_info);
  m.def("group_advantage", &py_group_advantage);
  m.def("discriminative_reward", &py_discriminative_reward);
  bind_masks(m);
  bind_polygons(m);
  bind_rle(m);
  bind_crops(m);
  bind_memory(m);
  bind_cuda(m);
  bind_tower(m);
}
