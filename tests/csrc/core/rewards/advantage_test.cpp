#include "core/rewards/advantage.h"

#include <cmath>
#include <limits>
#include <vector>

#include "check.h"

namespace {

const double kNan = std::numeric_limits<double>::quiet_NaN();

std::vector<double> advantages(const std::vector<double>& rewards, dpad::AdvantageScale scale,
                               const std::vector<int64_t>& ids = {}, bool keep_single = false) {
  dpad::AdvantageProblem problem;
  problem.n = static_cast<int64_t>(rewards.size());
  problem.ids = ids.empty() ? nullptr : ids.data();
  problem.group_size = 2;
  problem.scale = scale;
  problem.eps = 0.0;
  problem.keep_single = keep_single;
  std::vector<double> out(rewards.size(), kNan);
  dpad::group_advantage<double>(problem, rewards.data(), nullptr, out.data());
  return out;
}

bool close(const std::vector<double>& got, const std::vector<double>& expected) {
  for (size_t i = 0; i < got.size(); ++i)
    if (!(std::fabs(got[i] - expected[i]) < 1e-12)) return false;
  return got.size() == expected.size();
}

}  // namespace

TEST(each_scale_of_two_groups_of_two) {
  const std::vector<double> rewards{1, 3, 0, 4};
  const double root = std::sqrt(0.5);
  CHECK(close(advantages(rewards, dpad::AdvantageScale::none), {-1, 1, -2, 2}));
  CHECK(close(advantages(rewards, dpad::AdvantageScale::std_dev), {-root, root, -root, root}));
  CHECK(close(advantages(rewards, dpad::AdvantageScale::rloo), {-2, 2, -4, 4}));
  const double spread = std::sqrt(10.0 / 3);  // of all four rewards
  CHECK(close(advantages(rewards, dpad::AdvantageScale::batch), {-1 / spread, 1 / spread, -2 / spread, 2 / spread}));
  CHECK(close(advantages(rewards, dpad::AdvantageScale::gdpo), {-root, root, -root, root}));
}

TEST(groups_by_id_in_any_order) {
  CHECK(close(advantages({1, 0, 3, 4}, dpad::AdvantageScale::none, {7, -9, 7, -9}), {-1, -2, 1, 2}));
}

TEST(equal_rewards_and_unscored_rows_give_zero) {
  CHECK(close(advantages({0.1, 0.1, 2, kNan}, dpad::AdvantageScale::std_dev), {0, 0, 0, 0}));
  CHECK(close(advantages({0.1, 0.1, 2, kNan}, dpad::AdvantageScale::none, {}, true), {0, 0, 2, 0}));
}

TEST(tokens_that_are_masked_out_get_zero) {
  const float rows[] = {1.5f, -2.0f};
  const int64_t mask[] = {1, 0, int64_t{1} << 40, 0, 0, -1};
  float out[6];
  dpad::spread_over_tokens<float>(rows, mask, dpad::MaskKind::bits64, 2, 3, out);
  const float expected[] = {1.5f, 0, 1.5f, 0, 0, -2.0f};
  for (int i = 0; i < 6; ++i) CHECK(out[i] == expected[i]);
  const float floats[] = {0.5f, -0.0f, 0.0f, 1.0f, 1e-40f, 0.0f};
  dpad::spread_over_tokens<float>(rows, floats, dpad::MaskKind::float32, 2, 3, out);
  const float of_floats[] = {1.5f, 0, 0, -2.0f, -2.0f, 0};
  for (int i = 0; i < 6; ++i) CHECK(out[i] == of_floats[i]);
}
