// Group advantages and the discriminative reward.
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

#include "bindings/address.h"
#include "bindings/bind.h"
#include "core/rewards/advantage.h"
#include "core/rewards/discriminative.h"

namespace {

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
void advantages(const dpad::AdvantageProblem& problem, Address rewards, Address weights, Address mask,
                dpad::MaskKind mask_kind, int64_t tokens, Address scratch, Address out) {
  T* rows = mask == 0 ? at<T>(out) : at<T>(scratch);
  dpad::group_advantage<T>(problem, at<const T>(rewards), at<const T>(weights), rows);
  if (mask != 0) dpad::spread_over_tokens<T>(rows, at<const void>(mask), mask_kind, problem.n, tokens, at<T>(out));
}

// rewards [n, f], ids [n] or 0, weights [f] or 0, mask [n, tokens] or 0 (then scratch [n]), out [n] or [n, tokens].
void group_advantage(bool is_double, Address rewards, int64_t n, int64_t f, Address ids, int64_t group_size,
                     const std::string& scale, double eps, Address weights, bool keep_single, Address mask,
                     const std::string& mask_kind, int64_t tokens, Address scratch, Address out) {
  check_range("the number of rewards", n, 0, kMostItems);
  check_range("the number of terms", f, 0, kMostItems);
  check_range("the number of tokens", tokens, 0, kMostItems);
  if (ids == 0) check_range("group_size", group_size, 1, kMostItems);
  if (ids == 0 && n % group_size != 0)
    throw std::invalid_argument("group_size must divide " + std::to_string(n) + " rewards, got " +
                                std::to_string(group_size));
  const dpad::AdvantageProblem problem{
      n, f, at<const int64_t>(ids), group_size, named("scale", scale, kScales), eps, keep_single};
  const dpad::MaskKind kind = named("mask_kind", mask_kind, kMaskKinds);
  const auto run = is_double ? advantages<double> : advantages<float>;
  without_gil([&] { run(problem, rewards, weights, mask, kind, tokens, scratch, out); });
}

// text [n, d], roi and aoi [m, d], row_index [n] or 0, outputs float32 [n]; returns the first bad caption or -1.
int64_t discriminative_reward(const std::string& type, Address text, Address roi, Address aoi, Address row_index,
                              int64_t n, int64_t m, int64_t d, const std::string& shape, float alpha, float tau,
                              Address reward, Address s1, Address s2) {
  check_range("the number of texts", n, 0, kMostItems);
  check_range("the number of regions", m, 0, kMostItems);
  check_range("the width of embeddings", d, 0, kMostItems);
  const dpad::DiscriminativeProblem problem{
      n, m, d, at<const int64_t>(row_index), named("shape", shape, kRewardShapes), alpha, tau};
  const dpad::EmbeddingType element = named("type", type, kEmbeddingTypes);
  return without_gil([&] {
    return dpad::discriminative_reward(problem, element, at<const void>(text), at<const void>(roi), at<const void>(aoi),
                                       at<float>(reward), at<float>(s1), at<float>(s2));
  });
}

}  // namespace

void bind_rewards(pybind11::module_& m) {
  m.def("group_advantage", &group_advantage);
  m.def("discriminative_reward", &discriminative_reward);
}
