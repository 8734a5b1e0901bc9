// The tower's inner loops of each instruction set that this processor has, against plain C++.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <tuple>
#include <vector>

#include "check.h"
#include "simd/digits/table.h"
#include "simd/tower/table.h"

namespace {

using dpad::SimdLevel;

constexpr SimdLevel kLevels[] = {SimdLevel::avx2, SimdLevel::avx512, SimdLevel::amx, SimdLevel::neon, SimdLevel::i8mm};

std::vector<const dpad::TowerTable*> towers() {
  std::vector<const dpad::TowerTable*> found{&dpad::kTowerScalar};
  for (const SimdLevel level : kLevels)
    if (dpad::tower_table(level).level == level) found.push_back(&dpad::tower_table(level));
  return found;
}

std::vector<const dpad::DigitTable*> digit_tables() {
  std::vector<const dpad::DigitTable*> found{&dpad::kDigitScalar};
  for (const SimdLevel level : kLevels)
    if (dpad::digit_table(level).level == level) found.push_back(&dpad::digit_table(level));
  return found;
}

std::vector<float> wave(int64_t count, double step, double size = 1) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(size * std::sin(step * static_cast<double>(i + 1)));
  return values;
}

// Integers from -limit to limit.
template <typename Integer>
std::vector<Integer> integers(int64_t count, double step, double limit) {
  std::vector<Integer> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<Integer>(std::lrint(limit * std::sin(step * static_cast<double>(i + 1))));
  return values;
}

double quick_gelu(double x) { return x / (1 + std::exp(-1.702 * x)); }

bool close(double found, double expected, double tolerance) {
  return std::fabs(found - expected) <= tolerance * std::max(1.0, std::fabs(expected));
}

}  // namespace

TEST(every_level_sums_products_of_floats) {
  const std::vector<float> panel = wave(dpad::kBlock32 * dpad::kPanel, 0.37);
  for (const dpad::TowerTable* table : towers())
    for (const int64_t rows : {1, 3, 4, 5, 96}) {
      const std::vector<float> a = wave(rows * dpad::kBlock32, 0.71);
      std::vector<float> sums(dpad::kGemmRows * dpad::kPanel, 0.0f);
      table->block32(a.data(), panel.data(), rows, true, sums.data(), nullptr, 0);
      table->block32(a.data(), panel.data(), rows, false, sums.data(), nullptr, 0);
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < dpad::kPanel; ++c) {
          double sum = 0;
          for (int64_t i = 0; i < dpad::kBlock32; ++i)
            sum += static_cast<double>(a[static_cast<size_t>(r * dpad::kBlock32 + i)]) *
                   panel[static_cast<size_t>(i * dpad::kPanel + c)];
          CHECK(close(sums[static_cast<size_t>(r * dpad::kPanel + c)], 2 * sum, 1e-5));
        }
    }
}

TEST(every_level_sums_products_of_integers_exactly) {
  // Nearly the largest that a block allows: 128 elements with a norm of 45600.
  const std::vector<int16_t> panel = integers<int16_t>(dpad::kBlock16 * dpad::kPanel, 0.37, 5700);
  for (const dpad::TowerTable* table : towers())
    for (const int64_t rows : {1, 3, 4, 5, 96}) {
      const std::vector<int16_t> a = integers<int16_t>(rows * dpad::kBlock16, 0.71, 5700);
      const std::vector<float> scale(dpad::kGemmRows, 1.0f);
      std::vector<float> sums(dpad::kGemmRows * dpad::kPanel, NAN);
      table->block16(a.data(), scale.data(), panel.data(), rows, true, sums.data(), nullptr, 0);
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < dpad::kPanel; ++c) {
          int64_t sum = 0;
          for (int64_t i = 0; i < dpad::kBlock16; ++i)
            sum += int64_t{a[static_cast<size_t>(r * dpad::kBlock16 + i)]} *
                   panel[static_cast<size_t>(i / 2 * dpad::kPanel * 2 + c * 2 + i % 2)];
          CHECK(sums[static_cast<size_t>(r * dpad::kPanel + c)] == static_cast<float>(sum));
        }
    }
}

TEST(every_level_quantises_a_block_within_its_norm) {
  for (const dpad::TowerTable* table : towers())
    for (const int64_t count : {1, 3, 16, 70, 128, 130, 300}) {
      const std::vector<float> x = wave(count, 0.71, 1e-3);
      const int64_t blocks = (count + dpad::kBlock16 - 1) / dpad::kBlock16;
      std::vector<int16_t> q(static_cast<size_t>(blocks * dpad::kBlock16), 77);
      std::vector<float> scale(static_cast<size_t>(blocks), -1.0f);
      table->quantise(x.data(), count, q.data(), dpad::kBlock16, scale.data(), 1);
      for (int64_t b = 0; b < blocks; ++b) {
        double squares = 0;
        for (int64_t i = b * dpad::kBlock16; i < (b + 1) * dpad::kBlock16; ++i) {
          const double value = q[static_cast<size_t>(i)], worth = scale[static_cast<size_t>(b)];
          const double expected = i < count ? static_cast<double>(x[static_cast<size_t>(i)]) : 0.0;
          CHECK(std::fabs(value * worth - expected) <= 0.51 * worth);
          squares += value * value;
        }
        CHECK(squares <= 46340.0 * 46340.0 && squares >= 0.4 * 32767.0 * 32767.0);
      }
    }
}

TEST(every_level_marks_blocks_of_zeros_and_of_nan) {
  for (const dpad::TowerTable* table : towers())
    for (const double bad : {static_cast<double>(NAN), static_cast<double>(INFINITY), 0.0}) {
      std::vector<float> x(20, 0.0f);
      x[18] = static_cast<float>(bad);
      std::vector<int16_t> q(dpad::kBlock16, 77);
      float scale = -1;
      table->quantise(x.data(), 20, q.data(), dpad::kBlock16, &scale, 1);
      CHECK(bad == 0.0 ? scale == 0.0f : std::isnan(scale));
      CHECK(std::all_of(q.begin(), q.end(), [](int16_t value) { return value == 0; }));
    }
}

TEST(every_level_norms_and_blocks_rows_of_any_length) {
  for (const dpad::TowerTable* table : towers())
    for (const int64_t k : {1, 3, 5, 16, 63, 64, 65, 770}) {
      std::vector<float> x = wave(k, 0.71, 3);
      for (float& value : x) value += 5;
      const std::vector<float> weight = wave(k, 0.3), bias = wave(k, 0.2);
      double mean = 0, variance = 0;
      for (const float value : x) mean += value / static_cast<double>(k);
      for (const float value : x) variance += (value - mean) * (value - mean) / static_cast<double>(k);
      std::vector<float> y(static_cast<size_t>(k + 1), 9.0f);
      table->layer_norm(x.data(), weight.data(), bias.data(), k, 1e-5f, y.data());
      for (size_t i = 0; i < static_cast<size_t>(k); ++i)
        CHECK(close(y[i], (x[i] - mean) / std::sqrt(variance + 1e-5) * weight[i] + bias[i], 1e-5));
      CHECK(y[static_cast<size_t>(k)] == 9.0f);
      const int64_t blocks = (k + dpad::kBlock32 - 1) / dpad::kBlock32, stride = dpad::kBlock32 + 4;
      std::vector<float> out(static_cast<size_t>(blocks * stride), NAN);
      table->to_blocks(x.data(), k, out.data(), stride);
      for (int64_t i = 0; i < blocks * dpad::kBlock32; ++i)
        CHECK(out[static_cast<size_t>(i / dpad::kBlock32 * stride + i % dpad::kBlock32)] ==
              (i < k ? x[static_cast<size_t>(i)] : 0.0f));
    }
}

TEST(every_level_finishes_sums_of_any_size) {
  const std::vector<float> scale = wave(64, 0.9), bias = wave(64, 0.2);
  for (const dpad::TowerTable* table : towers())
    for (const int64_t count : {1, 2, 4, 7, 33, 64})
      for (const double size : {1.0, 30.0, 1e4})
        for (const bool gelu : {false, true}) {
          const std::vector<float> sums = wave(count, 1.3, size);
          std::vector<float> out(static_cast<size_t>(count + 1), 2.0f);
          table->finish(sums.data(), scale.data(), bias.data(), count, gelu, true, out.data());
          for (size_t c = 0; c < static_cast<size_t>(count); ++c) {
            const double value = static_cast<double>(sums[c]) * scale[c] + bias[c];
            CHECK(close(out[c], 2 + (gelu ? quick_gelu(value) : value), 1e-6));
          }
          CHECK(out[static_cast<size_t>(count)] == 2.0f);
          table->finish(sums.data(), nullptr, nullptr, count, gelu, false, out.data());
          for (size_t c = 0; c < static_cast<size_t>(count); ++c)
            CHECK(close(out[c], gelu ? quick_gelu(sums[c]) : static_cast<double>(sums[c]), 1e-6));
        }
}

TEST(every_level_quantises_what_the_activation_gives) {
  const std::vector<float> left = wave(64, 1.3, 4), right = wave(64, 0.8, 4), scale = wave(128, 0.9),
                           bias = wave(128, 0.2);
  for (const dpad::TowerTable* table : towers())
    for (const int64_t count : {3, 64, 65, 128}) {
      std::vector<int16_t> q(dpad::kBlock16, 77);
      const double worth = table->finish_block16(left.data(), right.data(), scale.data(), bias.data(), count, q.data());
      CHECK(worth > 0);
      for (size_t c = 0; c < 128; ++c) {
        const double sum = c < 64 ? left[c] : right[c - 64];
        const double expected = static_cast<int64_t>(c) < count ? quick_gelu(sum * scale[c] + bias[c]) : 0.0;
        CHECK(std::fabs(q[c] * worth - expected) <= 0.52 * worth + 1e-6);
      }
    }
}

TEST(every_level_attends_to_the_keys_that_a_query_sees) {
  for (const dpad::TowerTable* table : towers())
    for (const auto& [length, dim, from, causal] :
         {std::tuple{1, 1, 0, true}, std::tuple{5, 2, 0, true}, std::tuple{37, 64, 30, true},
          std::tuple{50, 64, 0, false}, std::tuple{33, 20, 1, true}, std::tuple{77, 80, 0, true}}) {
      const std::vector<float> q = wave((length - from) * dim, 0.71, 3), k = wave(length * dim, 0.37),
                               v = wave(length * dim, 0.53);
      std::vector<const float*> keys, values;
      for (int64_t j = 0; j < length; ++j) {
        keys.push_back(k.data() + j * dim);
        values.push_back(v.data() + j * dim);
      }
      const int64_t padded = (length + dpad::kKeyStep - 1) / dpad::kKeyStep * dpad::kKeyStep, stride = dim + 3;
      std::vector<float> keys_t(static_cast<size_t>(dim * padded), 0.0f), scores(static_cast<size_t>(4 * padded));
      std::vector<float> out(static_cast<size_t>((length - from) * stride), 9.0f);
      table->transpose_keys(keys.data(), length, dim, padded, keys_t.data());
      table->attend(q.data(), dim, keys_t.data(), padded, values.data(), length, dim, from, length, causal, 0.5f,
                    scores.data(), out.data(), stride);
      for (int64_t t = from; t < length; ++t) {
        const int64_t seen = causal ? t + 1 : length;
        std::vector<double> power;
        double total = 0;
        for (int64_t j = 0; j < seen; ++j) {
          double score = 0;
          for (int64_t d = 0; d < dim; ++d)
            score += 0.5 * q[static_cast<size_t>((t - from) * dim + d)] * k[static_cast<size_t>(j * dim + d)];
          power.push_back(std::exp(score));
          total += power.back();
        }
        for (int64_t d = 0; d < stride; ++d) {
          double expected = d < dim ? 0.0 : 9.0;  // what lies between two rows stays
          for (int64_t j = 0; d < dim && j < seen; ++j)
            expected += power[static_cast<size_t>(j)] / total * values[static_cast<size_t>(j)][d];
          CHECK(close(out[static_cast<size_t>((t - from) * stride + d)], expected, 1e-5));
        }
      }
    }
}

TEST(every_level_turns_rows_into_the_same_digits) {
  for (const dpad::DigitTable* table : digit_tables())
    for (const int digits : {2, 3})
      for (const int64_t count : {1, 5, 64, 70, 768}) {
        const std::vector<float> x = wave(count, 0.71, 0.01);
        const int64_t steps = (count + dpad::kDigitStep - 1) / dpad::kDigitStep;
        std::vector<int8_t> out(static_cast<size_t>(steps * digits * dpad::kTileBytes), 77);
        const double worth =
            table->to_digits(x.data(), count, digits, out.data(), dpad::kTileBytes, digits * dpad::kTileBytes);
        double largest = 0;
        for (int64_t i = 0; i < steps * dpad::kDigitStep; ++i) {
          int64_t value = 0;
          for (int d = 0; d < digits; ++d)
            value =
                256 * value +
                out[static_cast<size_t>((i / dpad::kDigitStep * digits + d) * dpad::kTileBytes + i % dpad::kDigitStep)];
          const double expected = i < count ? static_cast<double>(x[static_cast<size_t>(i)]) : 0.0;
          // A float32 quotient is itself off by up to half a unit of three digits.
          CHECK(std::fabs(static_cast<double>(value) * worth - expected) <= (digits == 2 ? 0.51 : 1.1) * worth);
          largest = std::max(largest, std::fabs(static_cast<double>(value)));
        }
        CHECK(largest >= 20000 && largest <= static_cast<double>(dpad::kLargestDigits[digits]) + 1);
      }
}

TEST(every_level_marks_rows_of_zeros_and_of_nan_in_digits) {
  for (const dpad::DigitTable* table : digit_tables())
    for (const double bad : {static_cast<double>(NAN), static_cast<double>(INFINITY), 0.0}) {
      std::vector<float> x(20, 0.0f);
      x[18] = static_cast<float>(bad);
      std::vector<int8_t> out(2 * dpad::kTileBytes, 77);
      const float worth = table->to_digits(x.data(), 20, 2, out.data(), dpad::kTileBytes, 2 * dpad::kTileBytes);
      CHECK(bad == 0.0 ? worth == 0.0f : std::isnan(worth));
      for (size_t i = 0; i < dpad::kDigitStep; ++i) CHECK(out[i] == 0 && out[dpad::kTileBytes + i] == 0);
    }
}

// A product of digits with every integer sum known, and its result by a table.
struct DigitCase {
  static constexpr int64_t kRows = 37, kSteps = 3, kColumns = 13;
  int digits, stored;
  std::vector<int8_t> a, weight;
  std::vector<float> row_scale = wave(kRows, 0.4), column_scale = wave(16, 0.6), bias = wave(16, 0.8);

  DigitCase(int digits, int stored)
      : digits(digits),
        stored(stored),
        a(integers<int8_t>(3 * kSteps * digits * dpad::kTileBytes, 0.71, 128 - 0.6)),
        weight(integers<int8_t>(kSteps * stored * dpad::kTileBytes, 0.37, 128 - 0.6)) {
    a[0] = weight[0] = -128;
  }

  // weight is [step, digit, 64, 16 columns].
  std::vector<int8_t> panel(int64_t together) const {
    std::vector<int8_t> out(weight.size());
    for (size_t i = 0; i < weight.size(); ++i) {
      const auto at = static_cast<int64_t>(i), tile = at / dpad::kTileBytes, k = at / 16 % 64, c = at % 16;
      out[static_cast<size_t>(tile * dpad::kTileBytes + k / together * together * 16 + c * together + k % together)] =
          weight[i];
    }
    return out;
  }

  std::vector<float> product(const dpad::DigitTable& table, bool add, bool quick_gelu, bool with_bias) const {
    const std::vector<int8_t> columns = panel(table.together);
    std::vector<float> out(kRows * (kColumns + 2), 0.25f);
    dpad::DigitProduct p{};
    p.a = a.data();
    p.a_stride = kSteps * digits * dpad::kTileBytes;
    p.panel = columns.data();
    p.panel_step = stored * dpad::kTileBytes;
    p.steps = kSteps;
    p.rows = kRows;
    p.columns = kColumns;
    p.row_scale = row_scale.data();
    p.column_scale = column_scale.data();
    p.bias = with_bias ? bias.data() : nullptr;
    p.add = add;
    p.quick_gelu = quick_gelu;
    p.out = out.data();
    p.out_stride = kColumns + 2;
    table.begin();
    table.multiply(p, digits);
    table.end();
    return out;
  }
};

TEST(every_level_multiplies_digits_to_the_same_bits) {
  for (const auto& [digits, stored] : {std::pair{2, 2}, std::pair{2, 3}, std::pair{3, 3}}) {
    const DigitCase problem(digits, stored);
    for (const dpad::DigitTable* table : digit_tables())
      for (const bool add : {false, true})
        for (const bool with_bias : {false, true}) {
          CHECK(problem.product(*table, add, false, with_bias) ==
                problem.product(dpad::kDigitScalar, add, false, with_bias));
          const std::vector<float> found = problem.product(*table, add, true, with_bias);
          const std::vector<float> expected = problem.product(dpad::kDigitScalar, add, true, with_bias);
          for (size_t i = 0; i < found.size(); ++i) CHECK(close(found[i], expected[i], 1e-6));
        }
  }
}
