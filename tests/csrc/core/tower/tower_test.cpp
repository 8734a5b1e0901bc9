#include "core/tower/tower.h"

#include <cmath>
#include <vector>

#include "check.h"
#include "core/tower/row_groups.h"

namespace {

constexpr dpad::Norm kNoNorm{nullptr, nullptr, 0.0f};

std::vector<float> wave(int64_t count, double step) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(std::sin(step * static_cast<double>(i + 1)));
  return values;
}

// A layer with its packed weights.
struct Layer {
  std::vector<float> weight, bias, scale, packed32;
  std::vector<int16_t> packed16;
  dpad::Linear linear;

  Layer(int64_t columns, int64_t depth, bool reduced)
      : weight(wave(columns * depth, 0.37)), bias(wave(columns, 0.11)), scale(static_cast<size_t>(columns + 64)) {
    const auto count = static_cast<size_t>(dpad::packed_elements(columns, depth, reduced));
    packed16.resize(reduced ? count : 0);
    packed32.resize(reduced ? 0 : count);
    if (reduced)
      dpad::pack16(weight.data(), columns, depth, packed16.data(), scale.data());
    else
      dpad::pack32(weight.data(), columns, depth, packed32.data());
    const void* packed = reduced ? static_cast<const void*>(packed16.data()) : packed32.data();
    linear = {reduced ? dpad::Products::int16 : dpad::Products::float32,
              0,
              columns,
              depth,
              packed,
              reduced ? scale.data() : nullptr,
              bias.data()};
  }
  // Of one row.
  double product(const float* x, int64_t column) const {
    double sum = bias[static_cast<size_t>(column)];
    for (int64_t i = 0; i < linear.depth; ++i)
      sum += static_cast<double>(x[i]) * weight[static_cast<size_t>(column * linear.depth + i)];
    return sum;
  }
};

}  // namespace

TEST(a_linear_layer_is_the_product_and_its_bias) {
  for (const bool reduced : {false, true})
    for (const auto& [rows, depth, columns] : {std::tuple{1, 5, 3}, std::tuple{7, 130, 65}, std::tuple{100, 64, 128}}) {
      const Layer layer(columns, depth, reduced);
      const std::vector<float> x = wave(rows * depth, 0.71);
      std::vector<float> out(static_cast<size_t>(rows * columns), NAN);
      dpad::linear(x.data(), rows, kNoNorm, layer.linear, dpad::Finish::store, 2, out.data());
      std::vector<float> added(out.size(), 1.0f);
      dpad::linear(x.data(), rows, kNoNorm, layer.linear, dpad::Finish::add, 1, added.data());
      const double bound = (reduced ? 1e-3 : 1e-5) * std::sqrt(static_cast<double>(depth));
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < columns; ++c) {
          const double expected = layer.product(x.data() + r * depth, c);
          const auto at = static_cast<size_t>(r * columns + c);
          CHECK(std::fabs(out[at] - expected) < bound);
          CHECK(std::fabs(added[at] - 1 - expected) < bound);
        }
    }
}

TEST(an_mlp_adds_the_second_layer_of_what_the_first_activates) {
  const Layer up(70, 20, false), down(20, 70, false);
  const std::vector<float> before = wave(9 * 20, 0.71);
  std::vector<float> x = before;
  dpad::mlp(x.data(), 9, kNoNorm, up.linear, down.linear, 2);
  for (int64_t r = 0; r < 9; ++r) {
    std::vector<float> hidden;
    for (int64_t c = 0; c < 70; ++c) {
      const double value = up.product(before.data() + r * 20, c);
      hidden.push_back(static_cast<float>(value / (1 + std::exp(-1.702 * value))));
    }
    for (int64_t c = 0; c < 20; ++c) {
      const auto at = static_cast<size_t>(r * 20 + c);
      CHECK(std::fabs(x[at] - before[at] - down.product(hidden.data(), c)) < 1e-4);
    }
  }
}

TEST(a_layer_norm_has_mean_and_variance_of_its_weights) {
  const float x[] = {1, 2, 3, 6}, weight[] = {1, 1, 2, 1}, bias[] = {0, 10, 0, 0};
  float out[4];
  dpad::layer_norm(x, 1, 4, {weight, bias, 0.0f}, 1, out);
  const double deviation = std::sqrt(14.0 / 4);  // of 1, 2, 3, 6 about 3
  const double expected[] = {-2 / deviation, 10 - 1 / deviation, 0, 3 / deviation};
  for (int i = 0; i < 4; ++i) CHECK(std::fabs(out[i] - expected[i]) < 1e-6);
}

TEST(attention_of_equal_keys_is_the_mean_of_the_values_seen) {
  // Two sequences share rows 0 and 1 and go on with 2 and 3; the queries are all positions.
  const int64_t path[] = {0, 1, 2, 0, 1, 3}, offsets[] = {0, 3, 6}, first[] = {0, 0}, last[] = {3, 3};
  const std::vector<float> q(6 * 2, 1.0f), k(4 * 2, 0.5f);
  const float v[] = {1, 10, 2, 20, 6, 60, 9, 90};
  std::vector<float> out(12, NAN);
  dpad::attention({2, path, offsets, first, last, 1, 2, true, 1}, q.data(), 2, k.data(), v, 2, out.data());
  const double expected[] = {1, 1.5, 3, 1, 1.5, 4};
  for (size_t i = 0; i < 6; ++i) {
    CHECK(std::fabs(out[2 * i] - expected[i]) < 1e-5);
    CHECK(std::fabs(out[2 * i + 1] - 10 * expected[i]) < 1e-4);
  }
}

TEST(groups_of_rows_cover_all_of_them_in_whole_tiles) {
  for (const int64_t rows : {1, 5, 6, 95, 96, 97, 1000})
    for (const int threads : {1, 2, 8}) {
      const dpad::RowGroups groups(rows, 6, 96, threads);
      int64_t next = 0;
      for (int64_t g = 0; g < groups.count(); ++g) {
        CHECK(groups.start(g) == next && next % 6 == 0);
        CHECK(groups.size(g) >= 1 && groups.size(g) <= 96);
        next += groups.size(g);
      }
      CHECK(next == rows);
    }
}
