#include "core/tower/digits.h"

#include <cmath>
#include <vector>

#include "check.h"

namespace {

std::vector<float> wave(int64_t count, double step) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(std::sin(step * static_cast<double>(i + 1)));
  return values;
}

constexpr dpad::Norm kNoNorm{nullptr, nullptr, 0.0f};

struct DigitLayer {
  std::vector<float> weight, scale;
  std::vector<int8_t> packed;
  dpad::Linear linear;

  DigitLayer(int64_t columns, int64_t depth, int digits)
      : weight(wave(columns * depth, 0.37)),
        scale(static_cast<size_t>(columns + 64)),
        packed(static_cast<size_t>(dpad::digit_bytes(columns, depth, digits))) {
    dpad::pack_digits(weight.data(), columns, depth, digits, packed.data(), scale.data());
    const auto products = digits == 2 ? dpad::Products::digits2 : dpad::Products::digits3;
    linear = {products, digits, columns, depth, packed.data(), scale.data(), nullptr};
  }
};

double product(const float* x, const float* weight, int64_t depth) {
  double sum = 0;
  for (int64_t i = 0; i < depth; ++i) sum += static_cast<double>(x[i]) * weight[i];
  return sum;
}

}  // namespace

TEST(products_of_digits_are_as_exact_as_their_number_says) {
  for (const int digits : {2, 3})
    for (const int64_t depth : {10, 64, 800}) {
      constexpr int64_t kRows = 19, kColumns = 17;
      const DigitLayer layer(kColumns, depth, digits);
      const std::vector<float> x = wave(kRows * depth, 0.71);
      std::vector<float> out(kRows * kColumns, NAN), others(out.size(), NAN);
      dpad::linear(x.data(), kRows, kNoNorm, layer.linear, dpad::Finish::store, 1, out.data());
      dpad::linear(x.data(), kRows, kNoNorm, layer.linear, dpad::Finish::store, 3, others.data());
      CHECK(out == others);
      const double bound = (digits == 2 ? 2e-4 : 1e-6) * static_cast<double>(depth);
      for (int64_t r = 0; r < kRows; ++r)
        for (int64_t c = 0; c < kColumns; ++c) {
          const double expected = product(x.data() + r * depth, layer.weight.data() + c * depth, depth);
          CHECK(std::fabs(out[static_cast<size_t>(r * kColumns + c)] - expected) < bound);
        }
    }
}

TEST(a_row_of_zeros_gives_zeros_and_one_of_nan_gives_nan) {
  const DigitLayer layer(3, 70, 3);
  std::vector<float> x(2 * 70, 0.0f), out(6, 5.0f);
  x[100] = NAN;
  dpad::linear(x.data(), 2, kNoNorm, layer.linear, dpad::Finish::store, 1, out.data());
  for (size_t i = 0; i < 3; ++i) CHECK(out[i] == 0.0f && std::isnan(out[3 + i]));
}
