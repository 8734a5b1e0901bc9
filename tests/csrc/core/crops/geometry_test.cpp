#include "core/crops/geometry.h"

#include <cstdlib>

#include "check.h"

namespace {

dpad::PreprocessOptions options(dpad::Resize resize, dpad::Center center = dpad::Center::floor) {
  dpad::PreprocessOptions options{};
  options.size = 224;
  options.resize = resize;
  options.center = center;
  options.order = dpad::PassOrder::horizontal;
  return options;
}

bool same(const dpad::Side& side, const dpad::Side& expected) {
  return side.source == expected.source && side.resized == expected.resized && side.first == expected.first &&
         side.kept == expected.kept && side.pad == expected.pad;
}

int32_t weight(const dpad::PairWeight& pair, int tap) { return pair.high[tap] * 65536 + pair.low[tap]; }

}  // namespace

TEST(sizes_after_the_resize_and_the_centre_crop) {
  const dpad::Geometry shortest = dpad::plan_geometry(640, 480, options(dpad::Resize::shortest));
  CHECK(same(shortest.width, {640, 298, 37, 224, 0}));
  CHECK(same(shortest.height, {480, 224, 0, 224, 0}));
  const dpad::Geometry squash = dpad::plan_geometry(640, 480, options(dpad::Resize::squash));
  CHECK(same(squash.width, {640, 224, 0, 224, 0}));
  CHECK(same(squash.height, {480, 224, 0, 224, 0}));
  const dpad::Geometry longest = dpad::plan_geometry(640, 480, options(dpad::Resize::longest));
  CHECK(same(longest.width, {640, 224, 0, 224, 0}));
  CHECK(same(longest.height, {480, 168, 0, 168, 28}));
}

TEST(an_odd_margin_is_cut_down_or_rounded_half_to_even) {
  // 224 * 299 / 224 = 299 columns: a margin of 75.
  const auto cut = [](dpad::Center center) {
    return dpad::plan_geometry(299, 224, options(dpad::Resize::shortest, center)).width.first;
  };
  CHECK(cut(dpad::Center::floor) == 37);
  CHECK(cut(dpad::Center::round) == 38);
}

TEST(which_pass_comes_first) {
  const auto vertical = [](int64_t width, int64_t height, dpad::PassOrder order) {
    dpad::PreprocessOptions chosen = options(dpad::Resize::squash);
    chosen.order = order;
    return dpad::plan_geometry(width, height, chosen).vertical_first;
  };
  CHECK(!vertical(10, 2000, dpad::PassOrder::horizontal));
  CHECK(vertical(10, 2000, dpad::PassOrder::pillow_12_3));
  CHECK(!vertical(20, 2000, dpad::PassOrder::pillow_12_3));  // 100 times as high, not more
  CHECK(vertical(250, 500, dpad::PassOrder::pillow_13));     // loses 276 rows and 26 columns
  CHECK(!vertical(400, 500, dpad::PassOrder::pillow_13));    // and here 276 and 176
}

TEST(weights_are_pillows_in_fixed_point) {
  std::vector<double> scratch;
  dpad::AxisWeights axis;
  dpad::compute_weights({4, 2, 0, 2, 0, 4, dpad::Filter::bilinear, false}, scratch, axis);
  CHECK(axis.pairs == 2);
  CHECK(axis.first[0] == 0);
  // (3/4, 3/4, 1/4) / (7/4) in units of 2^-22.
  CHECK(weight(axis.weights[0], 0) == 1797559);
  CHECK(weight(axis.weights[0], 1) == 1797559);
  CHECK(weight(axis.weights[1], 0) == 599186);
  CHECK(weight(axis.weights[1], 1) == 0);
}

TEST(a_side_that_keeps_its_size_is_copied) {
  std::vector<double> scratch;
  dpad::AxisWeights axis;
  dpad::compute_weights({7, 7, 0, 7, 0, 7, dpad::Filter::bicubic, false}, scratch, axis);
  for (int64_t i = 0; i < 7; ++i) {
    CHECK(axis.first[static_cast<size_t>(i)] == i);
    CHECK(weight(axis.weights[static_cast<size_t>(i * axis.pairs)], 0) == 1 << 22);
  }
}

TEST(pixels_outside_of_the_image_have_no_weight) {
  std::vector<double> scratch;
  dpad::AxisWeights axis;
  dpad::compute_weights({100, 10, 0, 10, 40, 60, dpad::Filter::bicubic, false}, scratch, axis);
  CHECK(axis.begin >= 40 && axis.end <= 60);
  int64_t outer = 0;
  for (int64_t pair = 0; pair < axis.pairs; ++pair)
    for (int tap = 0; tap < 2; ++tap) outer += std::abs(weight(axis.weights[static_cast<size_t>(pair)], tap));
  CHECK(outer == 0);  // the first output's window, columns -15 to 25, is outside altogether
}
