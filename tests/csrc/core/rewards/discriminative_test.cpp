#include "core/rewards/discriminative.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "check.h"

namespace {

struct Scores {
  int64_t bad = -2;
  float reward = -9, s1 = -9, s2 = -9;
};

// One caption of two numbers against one region.
Scores score(const dpad::DiscriminativeProblem& problem, const float (&roi)[2], const float (&aoi)[2]) {
  const float text[2] = {2, 0};
  Scores out;
  out.bad =
      dpad::discriminative_reward(problem, dpad::EmbeddingType::float32, text, roi, aoi, &out.reward, &out.s1, &out.s2);
  return out;
}

dpad::DiscriminativeProblem problem(dpad::RewardShape shape) {
  dpad::DiscriminativeProblem problem;
  problem.n = problem.m = 1;
  problem.d = 2;
  problem.shape = shape;
  problem.alpha = 3;
  problem.tau = 0.7f;
  return problem;
}

}  // namespace

TEST(cosines_and_each_shape) {
  const float roi[2] = {3, 4}, aoi[2] = {0, 5};  // cosines 0.6 and 0
  const auto reward = [&](dpad::RewardShape shape) {
    const Scores scores = score(problem(shape), roi, aoi);
    CHECK(scores.bad == -1 && std::fabs(scores.s1 - 0.6f) < 1e-6f && scores.s2 == 0.0f);
    return scores.reward;
  };
  CHECK(reward(dpad::RewardShape::binary) == 1.0f);
  CHECK(std::fabs(reward(dpad::RewardShape::margin) - 0.6f) < 1e-6f);
  CHECK(std::fabs(reward(dpad::RewardShape::released) - 0.36f) < 1e-6f);
  CHECK(std::fabs(reward(dpad::RewardShape::sigmoid) - 1.0f / (1.0f + std::exp(-1.8f))) < 1e-6f);
  CHECK(reward(dpad::RewardShape::roi_threshold) == 0.0f);
}

TEST(nothing_to_compare_and_zero_embeddings) {
  const float roi[2] = {0, 0}, aoi[2] = {1, 0};
  const Scores zero = score(problem(dpad::RewardShape::binary), roi, aoi);
  CHECK(zero.s1 == 0.0f && zero.s2 == 1.0f && zero.reward == 0.0f);
  const int64_t none[] = {-1}, beyond[] = {1};
  dpad::DiscriminativeProblem indexed = problem(dpad::RewardShape::sigmoid);
  indexed.row_index = none;
  const Scores missing = score(indexed, roi, aoi);
  CHECK(std::isnan(missing.s1) && std::isnan(missing.s2) && missing.reward == 0.0f && missing.bad == -1);
  indexed.row_index = beyond;
  CHECK(score(indexed, roi, aoi).bad == 0);
}

TEST(all_types_of_embeddings) {
  const double doubles[3][2] = {{2, 0}, {3, 4}, {0, 5}};
  const uint16_t halves[3][2] = {{0x4000, 0}, {0x4200, 0x4400}, {0, 0x4500}};
  const uint16_t bfloats[3][2] = {{0x4000, 0}, {0x4040, 0x4080}, {0, 0x40A0}};
  const auto check = [](dpad::EmbeddingType type, const void* text, const void* roi, const void* aoi) {
    float reward, s1, s2;
    const auto binary = problem(dpad::RewardShape::binary);
    CHECK(dpad::discriminative_reward(binary, type, text, roi, aoi, &reward, &s1, &s2) == -1);
    CHECK(reward == 1.0f && std::fabs(s1 - 0.6f) < 1e-6f && s2 == 0.0f);
  };
  check(dpad::EmbeddingType::float64, doubles[0], doubles[1], doubles[2]);
  check(dpad::EmbeddingType::float16, halves[0], halves[1], halves[2]);
  check(dpad::EmbeddingType::bfloat16, bfloats[0], bfloats[1], bfloats[2]);
}
