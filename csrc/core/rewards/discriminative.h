// Cosines of captions against their regions, and the reward made from them (dpad_fast.ops.discriminative_reward).
#pragma once

#include <cstdint>

namespace dpad {

enum class RewardShape { binary, released, margin, sigmoid, roi_threshold };
enum class EmbeddingType { float32, float16, bfloat16, float64 };

struct DiscriminativeProblem {
  int64_t n = 0;                       // captions
  int64_t m = 0;                       // regions
  int64_t d = 0;                       // width of an embedding
  const int64_t* row_index = nullptr;  // [n] region of each caption, -1 for none; null: caption i with region i
  RewardShape shape = RewardShape::binary;
  float alpha = 1;
  float tau = 0;
};

// text [n, d], roi and aoi [m, d], row-major, all of one type; reward, s1, s2 [n].
// Returns the first caption whose row_index is outside [-1, m), or -1 when all are in range; then outputs are complete.
int64_t discriminative_reward(const DiscriminativeProblem& problem, EmbeddingType type, const void* text,
                              const void* roi, const void* aoi, float* reward, float* s1, float* s2);

}  // namespace dpad
