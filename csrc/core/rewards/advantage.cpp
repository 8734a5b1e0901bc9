#include "core/rewards/advantage.h"

#include <cmath>
#include <limits>
#include <vector>

namespace dpad {
namespace {

constexpr double kUnscored = std::numeric_limits<double>::quiet_NaN();

// Dense group numbers in order of first appearance. Open addressing, because the usual case is a thousand rows and
// std::unordered_map would spend longer on its nodes than on everything else here.
class Grouping {
 public:
  explicit Grouping(const AdvantageProblem& p) : of_row_(static_cast<size_t>(p.n)) {
    if (p.ids == nullptr) {
      for (int64_t i = 0, g = 0; i < p.n; ++g)
        for (int64_t k = 0; k < p.group_size && i < p.n; ++k, ++i) of_row_[i] = static_cast<int32_t>(g);
      count_ = p.n / p.group_size;
      return;
    }
    size_t capacity = 16;
    while (capacity < 2 * of_row_.size()) capacity *= 2;
    std::vector<int64_t> keys(capacity);
    std::vector<int32_t> values(capacity, -1);
    for (int64_t i = 0; i < p.n; ++i) {
      const uint64_t mixed = static_cast<uint64_t>(p.ids[i]) * 0x9E3779B97F4A7C15ull;
      size_t slot = (mixed ^ (mixed >> 32)) & (capacity - 1);
      while (values[slot] >= 0 && keys[slot] != p.ids[i]) slot = (slot + 1) & (capacity - 1);
      if (values[slot] < 0) {
        keys[slot] = p.ids[i];
        values[slot] = static_cast<int32_t>(count_++);
      }
      of_row_[i] = values[slot];
    }
  }

  int32_t operator[](int64_t row) const { return of_row_[row]; }
  int64_t count() const { return count_; }

 private:
  std::vector<int32_t> of_row_;
  int64_t count_ = 0;
};

// 0 where the distance is 0, or where the divisor is: with eps 0, a spread may be 0 or too small to square.
double divided(double distance, double divisor) { return distance == 0 || divisor == 0 ? 0.0 : distance / divisor; }

struct Moments {
  double mean = 0;
  double squares = 0;  // sum of squared distances from the mean
  int64_t count = 0;

  double std_dev() const { return count > 1 ? std::sqrt(squares / static_cast<double>(count - 1)) : 0.0; }
};

// Two passes. The one-pass formula leaves a rounding error for equal rewards, which 1 / eps would magnify.
std::vector<Moments> group_moments(const std::vector<double>& values, const Grouping& groups) {
  std::vector<Moments> moments(static_cast<size_t>(groups.count()));
  const int64_t n = static_cast<int64_t>(values.size());
  for (int64_t i = 0; i < n; ++i) {
    if (std::isnan(values[i])) continue;
    Moments& m = moments[groups[i]];
    m.mean += values[i];
    ++m.count;
  }
  for (Moments& m : moments)
    if (m.count > 0) m.mean /= static_cast<double>(m.count);
  for (int64_t i = 0; i < n; ++i) {
    if (std::isnan(values[i])) continue;
    Moments& m = moments[groups[i]];
    m.squares += (values[i] - m.mean) * (values[i] - m.mean);
  }
  return moments;
}

Moments batch_moments(const std::vector<double>& values) {
  Moments m;
  for (double v : values) {
    if (std::isnan(v)) continue;
    m.mean += v;
    ++m.count;
  }
  if (m.count > 0) m.mean /= static_cast<double>(m.count);
  for (double v : values)
    if (!std::isnan(v)) m.squares += (v - m.mean) * (v - m.mean);
  return m;
}

// The weighted sum of a row's scored terms; NaN where no term is scored.
template <typename T>
std::vector<double> weighted_rows(const AdvantageProblem& p, const T* rewards, const T* weights) {
  std::vector<double> rows(static_cast<size_t>(p.n));
  for (int64_t i = 0; i < p.n; ++i) {
    double sum = 0;
    bool scored = false;
    for (int64_t k = 0; k < p.f; ++k) {
      const double value = rewards[i * p.f + k];
      if (!std::isfinite(value)) continue;
      sum += value * (weights != nullptr ? static_cast<double>(weights[k]) : 1.0);
      scored = true;
    }
    rows[i] = scored ? sum : kUnscored;
  }
  return rows;
}

template <typename T>
void summed_then_scaled(const AdvantageProblem& p, const T* rewards, const T* weights, T* out) {
  const Grouping groups(p);
  const std::vector<double> rows = weighted_rows(p, rewards, weights);
  const std::vector<Moments> moments = group_moments(rows, groups);
  const double batch_std = p.scale == AdvantageScale::batch ? batch_moments(rows).std_dev() : 0.0;
  std::vector<double> divisor(moments.size(), 1.0);
  for (size_t g = 0; g < moments.size(); ++g) {
    const Moments& m = moments[g];
    if (p.scale == AdvantageScale::std_dev) divisor[g] = (m.count == 1 ? 1.0 : m.std_dev()) + p.eps;
    if (p.scale == AdvantageScale::batch) divisor[g] = batch_std + p.eps;
    if (p.scale == AdvantageScale::rloo && m.count > 1) divisor[g] = (m.count - 1.0) / static_cast<double>(m.count);
  }
  for (int64_t i = 0; i < p.n; ++i) {
    const Moments& m = moments[groups[i]];
    const double distance = p.keep_single && m.count == 1 ? rows[i] : rows[i] - m.mean;
    out[i] = std::isnan(rows[i]) ? T(0) : static_cast<T>(divided(distance, divisor[groups[i]]));
  }
}

template <typename T>
void scaled_then_summed(const AdvantageProblem& p, const T* rewards, const T* weights, T* out) {
  const Grouping groups(p);
  std::vector<double> total(static_cast<size_t>(p.n), kUnscored);
  std::vector<double> term(static_cast<size_t>(p.n));
  for (int64_t k = 0; k < p.f; ++k) {
    for (int64_t i = 0; i < p.n; ++i) {
      const double value = rewards[i * p.f + k];
      term[i] = std::isfinite(value) ? value : kUnscored;
    }
    const std::vector<Moments> moments = group_moments(term, groups);
    const double weight = weights != nullptr ? static_cast<double>(weights[k]) : 1.0;
    for (int64_t i = 0; i < p.n; ++i) {
      if (std::isnan(term[i])) continue;
      const Moments& m = moments[groups[i]];
      const double distance = p.keep_single && m.count == 1 ? term[i] : term[i] - m.mean;
      const double divisor = (m.count == 1 ? 1.0 : m.std_dev()) + p.eps;
      total[i] = (std::isnan(total[i]) ? 0.0 : total[i]) + weight * divided(distance, divisor);
    }
  }
  Moments batch;
  double divisor = 1.0;
  if (p.scale == AdvantageScale::gdpo_batch) {
    batch = batch_moments(total);
    divisor = batch.std_dev() + p.eps;
  }
  for (int64_t i = 0; i < p.n; ++i) {
    const double distance = total[i] - batch.mean;
    out[i] = std::isnan(distance) ? T(0) : static_cast<T>(divided(distance, divisor));
  }
}

// Zero exactly where the element is, in 32 bits: baseline x86 compares no 64-bit integers, and without this a mask of
// int64 (what tokenizers give) took ten times as long as one of bytes.
template <typename M>
uint32_t nonzero_bits(M element) {
  if constexpr (sizeof(M) == 8) return static_cast<uint32_t>(element) | static_cast<uint32_t>(element >> 32);
  return static_cast<uint32_t>(element);
}

template <typename T, typename M>
void spread(const T* advantage, const void* mask, M significant, int64_t n, int64_t t, T* out) {
  for (int64_t i = 0; i < n; ++i) {
    const T value = advantage[i];
    const M* in = static_cast<const M*>(mask) + i * t;
    T* row = out + i * t;
    for (int64_t j = 0; j < t; ++j) row[j] = nonzero_bits<M>(in[j] & significant) != 0 ? value : T(0);
  }
}

}  // namespace

template <typename T>
void group_advantage(const AdvantageProblem& p, const T* rewards, const T* weights, T* out) {
  if (p.scale == AdvantageScale::gdpo || p.scale == AdvantageScale::gdpo_batch) {
    scaled_then_summed(p, rewards, weights, out);
  } else {
    summed_then_scaled(p, rewards, weights, out);
  }
}

// Floating masks are read as bits without their sign, so that -0.0 is zero and no conversion is needed.
template <typename T>
void spread_over_tokens(const T* advantage, const void* mask, MaskKind kind, int64_t n, int64_t t, T* out) {
  switch (kind) {
    case MaskKind::bits8:
      return spread<T, uint8_t>(advantage, mask, 0xFF, n, t, out);
    case MaskKind::bits16:
      return spread<T, uint16_t>(advantage, mask, 0xFFFF, n, t, out);
    case MaskKind::bits32:
      return spread<T, uint32_t>(advantage, mask, 0xFFFFFFFFu, n, t, out);
    case MaskKind::bits64:
      return spread<T, uint64_t>(advantage, mask, ~0ull, n, t, out);
    case MaskKind::float16:
      return spread<T, uint16_t>(advantage, mask, 0x7FFF, n, t, out);
    case MaskKind::float32:
      return spread<T, uint32_t>(advantage, mask, 0x7FFFFFFFu, n, t, out);
    case MaskKind::float64:
      return spread<T, uint64_t>(advantage, mask, ~0ull >> 1, n, t, out);
  }
}

template void group_advantage<float>(const AdvantageProblem&, const float*, const float*, float*);
template void group_advantage<double>(const AdvantageProblem&, const double*, const double*, double*);
template void spread_over_tokens<float>(const float*, const void*, MaskKind, int64_t, int64_t, float*);
template void spread_over_tokens<double>(const double*, const void*, MaskKind, int64_t, int64_t, double*);

}  // namespace dpad
