#include "core/masks/polygons.h"

#include <limits>

#include "check.h"

namespace {

// A rectangle, and a triangle cut by a hole that is a ring of its own.
const std::vector<double> kVertices{1, 1, 4, 1, 4, 3, 1, 3, 0, 0, 8, 0, 0, 8, 1, 1, 3, 1, 1, 3};
const std::vector<int64_t> kRings{0, 4, 7, 10}, kObjects{0, 1, 3};
const dpad::PolygonBatch kBatch{kVertices.data(), kRings.data(), kObjects.data(), 2};

}  // namespace

TEST(pixels_whose_centre_is_inside) {
  std::vector<uint64_t> words(2 * 8, ~uint64_t{0});
  std::vector<int64_t> area(2);
  std::vector<dpad::PixelBox> box(2);
  dpad::draw_polygons(kBatch, 8, 8, dpad::PolygonRule::center, 2, false, words.data(), area.data(), box.data());
  CHECK(std::vector<uint64_t>(words.begin(), words.begin() + 8) == (std::vector<uint64_t>{0, 14, 14, 0, 0, 0, 0, 0}));
  CHECK(area[0] == 6);
  CHECK(box[0].x1 == 1 && box[0].y1 == 1 && box[0].x2 == 4 && box[0].y2 == 3);
  // Centres on the slope x + y = 8 are its right end, which is not inside: 7 + 6 + ... + 1, less the hole's one.
  CHECK(area[1] == 28 - 1);
  CHECK((words[8 + 1] & 2) == 0);
}

TEST(every_way_to_draw_agrees) {
  for (const auto rule : {dpad::PolygonRule::coco, dpad::PolygonRule::opencv, dpad::PolygonRule::center}) {
    std::vector<uint64_t> words(2 * 9);
    std::vector<int64_t> area(2), intersection(2), uni(2);
    std::vector<dpad::PixelBox> box(2);
    std::vector<uint8_t> dense(2 * 9 * 10, 7), unpacked(dense.size());
    dpad::draw_polygons(kBatch, 9, 10, rule, 1, true, words.data(), area.data(), box.data());
    dpad::draw_polygons_dense(kBatch, 9, 10, rule, 1, false, dense.data());
    dpad::unpack_masks(words.data(), 2, 9, 10, 1, unpacked.data());
    CHECK(dense == unpacked);
    const std::vector<dpad::Rle> rles = dpad::polygons_to_rle(kBatch, 9, 10, rule, 1);
    const dpad::PackedView drawn{words.data(), area.data(), box.data(), 2, 9, 10};
    const int64_t swapped[] = {1, 0};
    dpad::polygon_counts(kBatch, rule, drawn, swapped, nullptr, 1, intersection.data(), uni.data());
    const int64_t both = dpad::intersect(drawn.view(0), drawn.view(1));
    for (size_t i = 0; i < 2; ++i) {
      CHECK(dpad::rle_area(rles[i]) == area[i]);
      CHECK(intersection[i] == both && uni[i] == area[0] + area[1] - both);
    }
  }
}

TEST(bad_polygons_are_named) {
  const auto check = [](std::vector<double> xy, std::vector<int64_t> rings, std::vector<int64_t> objects) {
    dpad::check_polygons({xy.data(), rings.data(), objects.data(), static_cast<int64_t>(objects.size()) - 1},
                         static_cast<int64_t>(xy.size() / 2), static_cast<int64_t>(rings.size()) - 1);
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  check({1, 1, 2, 2, 3, 1}, {0, 3}, {0, 1});
  CHECK_INVALID(check({1, 1, 2, 2}, {0, 2}, {0, 1}), "polygons[0], ring 0 has 2 vertices, expected at least 3");
  CHECK_INVALID(check({1, 1, 2, nan, 3, 1}, {0, 3}, {0, 1}), "polygons[0], ring 0: vertex 1 has the coordinate");
  CHECK_INVALID(check({1, 1, 2, 2, 3, 1.1e7}, {0, 3}, {0, 1}), "vertex 2");
  CHECK_INVALID(check({1, 1, 2, 2, 3, 1}, {0, 4}, {0, 1}), "ring_starts must rise from 0 to 3");
  CHECK_INVALID(check({1, 1, 2, 2, 3, 1}, {0, 3}, {0, 2}), "object_starts must rise from 0 to 1");
}
