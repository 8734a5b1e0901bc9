#include "core/crops/gpu_plan.h"

#include "check.h"
#include "core/crops/geometry.h"

namespace {

const dpad::GpuImage kImage{4096, 4, 2560, 1, 640, 480, 4};

dpad::ResizeOptions options(int64_t size, dpad::Resize resize, dpad::Filter filter = dpad::Filter::bicubic,
                            dpad::PassOrder order = dpad::PassOrder::pillow_13) {
  return {size, resize, filter, dpad::Center::floor, order};
}

template <typename T>
bool same(const dpad::PerAxis<T>& got, T x, T y) {
  return got.x == x && got.y == y;
}

}  // namespace

TEST(a_row_has_what_the_image_and_the_resize_are) {
  dpad::GpuCrop crop{};
  // 300 x 480, of which 20 rows lie above the image: to 224 x 358, of which the centre crop keeps 224 rows.
  const dpad::GpuPlan plan =
      dpad::plan_for_gpu({kImage}, {{0, 10, -20, 310, 460}}, options(224, dpad::Resize::shortest), &crop);
  CHECK(crop.pointer == 4096 && crop.stride_c == 1 && crop.pixel_bytes == 4);
  CHECK(same<int64_t>(crop.stride, 4, 2560));
  CHECK(same<int64_t>(crop.extent, 640, 480));
  CHECK(same<int64_t>(crop.corner, 10, -20));
  CHECK(same<int64_t>(crop.source, 300, 480));
  CHECK(same<int64_t>(crop.target, 224, 358));
  CHECK(same<int64_t>(crop.offset, 0, 67));
  CHECK(same(crop.scale, 300.0 / 224.0, 480.0 / 358.0));
  CHECK(same<int64_t>(crop.taps, 7, 7));  // 2.7 pixels to both sides of the centre
  CHECK(same<int64_t>(crop.weights, 0, 7 * 224));
  CHECK(crop.vertical_first == 0 && crop.lines == 460 && crop.between == 0);
  CHECK(plan.weights == 14 * 224);
  CHECK(plan.between == 3 * 460 * 224);
  CHECK(plan.most_lines == 460);
}

TEST(regions_share_the_memory_one_after_the_other) {
  dpad::GpuCrop crops[3] = {};
  const std::vector<dpad::Region> regions{{0, 600, 0, 630, 200}, {1, 0, 0, 30, 20}, {0, 630, 100, 660, 130}};
  const dpad::GpuImage small{64, 3, 90, 1, 30, 20, 3};
  const dpad::GpuPlan plan =
      dpad::plan_for_gpu({kImage, small}, regions, options(20, dpad::Resize::squash, dpad::Filter::bilinear), crops);
  // Loses 180 rows and 10 columns, so its columns are resampled first: 30 of them, in 20 rows of 2 units.
  CHECK(crops[0].vertical_first == 1 && crops[0].lines == 30 && crops[0].between == 0);
  CHECK(same<int64_t>(crops[0].taps, 5, 21));
  // Loses columns only. Its 20 rows keep their number, and have 20 columns in 2 units after the first pass.
  CHECK(crops[1].pointer == 64 && crops[1].vertical_first == 0 && crops[1].lines == 20);
  CHECK(crops[1].between == 3 * 20 * 2);
  CHECK(same<int64_t>(crops[1].weights, 26 * 20, 31 * 20));
  CHECK(same<int64_t>(crops[1].taps, 5, 3));
  CHECK(crops[2].between == 2 * 3 * 20 * 2);
  CHECK(crops[2].lines == 30);
  CHECK(plan.weights == (26 + 8 + 10) * 20);
  CHECK(plan.between == 16 * 3 * (20 * 2 + 20 * 2 + 30 * 2));
  CHECK(plan.most_lines == 30);
}

TEST(a_box_that_is_padded_or_lies_outside) {
  dpad::GpuCrop crops[2] = {};
  const dpad::GpuPlan plan = dpad::plan_for_gpu({kImage}, {{0, 0, 0, 640, 480}, {0, -50, -50, -10, -10}},
                                                options(224, dpad::Resize::longest), crops);
  CHECK(same<int64_t>(crops[0].target, 224, 168));
  CHECK(same<int64_t>(crops[0].offset, 0, -28));  // 28 black rows above the picture
  CHECK(crops[1].lines == 0);
  CHECK(plan.between == 3 * 480 * 224);
  CHECK(plan.most_lines == 480);
}

// The plan's bound is what the weights of the same side on the CPU keep to, whatever the sizes.
TEST(no_window_is_wider_than_its_taps) {
  std::vector<double> scratch;
  dpad::AxisWeights axis;
  for (const auto filter : {dpad::Filter::bicubic, dpad::Filter::bilinear})
    for (int64_t source = 1; source < 60; ++source)
      for (int64_t resized = 1; resized < 40; resized += 3) {
        dpad::compute_weights({source, resized, 0, resized, 0, source, filter, false}, scratch, axis);
        CHECK(2 * axis.pairs - 1 <= dpad::most_taps(dpad::resize_scale(source, resized), filter));
      }
}

TEST(no_region_needs_nothing) {
  const dpad::GpuPlan plan = dpad::plan_for_gpu({}, {}, options(224, dpad::Resize::squash), nullptr);
  CHECK(plan.weights == 0 && plan.between == 0 && plan.most_lines == 0);
}
