// Group-relative advantages of N completions, and their spread over T tokens (dpad_fast.ops.group_advantage).
#pragma once

#include <cstdint>

namespace dpad {

enum class AdvantageScale { std_dev, none, batch, rloo, gdpo, gdpo_batch };

struct AdvantageProblem {
  int64_t n = 0;                 // rows
  int64_t f = 1;                 // reward terms per row
  const int64_t* ids = nullptr;  // [n] group of each row, any values; null: neighbours in groups of group_size
  int64_t group_size = 1;        // used where ids is null; divides n
  AdvantageScale scale = AdvantageScale::std_dev;
  double eps = 1e-6;
  bool keep_single = false;  // a lone row keeps its reward (mean 0, std 1) rather than advantage 0
};

// rewards [n, f] row-major, weights [f] or null, out [n]. Non-finite rewards are unscored. Statistics are in double.
template <typename T>
void group_advantage(const AdvantageProblem& problem, const T* rewards, const T* weights, T* out);

enum class MaskKind { bits8, bits16, bits32, bits64, float16, float32, float64 };

// out [n, t] = advantage[i] where mask[i, t] is not zero, 0 elsewhere.
template <typename T>
void spread_over_tokens(const T* advantage, const void* mask, MaskKind kind, int64_t n, int64_t t, T* out);

}  // namespace dpad
