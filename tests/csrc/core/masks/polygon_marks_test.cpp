#include "core/masks/polygon_marks.h"

#include "check.h"

namespace {

// One object of one ring.
struct Ring {
  std::vector<double> vertices;
  int64_t rings[2], objects[2] = {0, 1};

  explicit Ring(std::vector<double> xy)
      : vertices(std::move(xy)), rings{0, static_cast<int64_t>(vertices.size() / 2)} {}
  dpad::PolygonBatch batch() const { return {vertices.data(), rings, objects, 1}; }
};

const dpad::PolygonRule kRules[] = {dpad::PolygonRule::coco, dpad::PolygonRule::opencv, dpad::PolygonRule::center};

}  // namespace

TEST(the_window_holds_the_polygon_and_little_more) {
  const Ring square({130, 5, 140, 5, 140, 9, 130, 9});
  for (const dpad::PolygonRule rule : kRules) {
    dpad::PolygonMarks marks(50, 640, rule);
    CHECK(marks.mark(square.batch(), 0));
    CHECK(marks.word() == 2);
    CHECK(marks.words() == 1);
    CHECK(marks.row() <= 5 && marks.row() >= 3);
    CHECK(marks.row() + marks.rows() >= 10 && marks.rows() <= 9);
    marks.plane();
  }
}

TEST(an_object_outside_of_the_image_marks_nothing) {
  for (const dpad::PolygonRule rule : kRules) {
    dpad::PolygonMarks marks(50, 64, rule);
    CHECK(!marks.mark(Ring({5, 100, 9, 100, 9, 120}).batch(), 0));
    if (rule != dpad::PolygonRule::opencv) CHECK(!marks.mark(Ring({100, 5, 120, 5, 120, 9}).batch(), 0));
  }
}

TEST(marks_are_clear_again_after_they_were_folded) {
  const Ring triangle({2, 2, 30, 4, 8, 20});
  for (const dpad::PolygonRule rule : kRules) {
    dpad::PolygonMarks marks(24, 64, rule);
    std::vector<uint64_t> first(24), again(24);
    for (auto* out : {&first, &again}) {
      CHECK(marks.mark(triangle.batch(), 0));
      dpad::mask_table().fold_draw(marks.plane(), {out->data() + marks.row(), 1, false});
    }
    CHECK(first == again);
    CHECK(first[5] != 0);
  }
}
