#include "core/masks/rle.h"

#include "check.h"

namespace {

using Counts = std::vector<uint32_t>;

dpad::Rle from_string(const std::string& text, int64_t height, int64_t width) {
  return dpad::rle_from_string({"rles", 3}, text.data(), text.size(), height, width);
}

dpad::Rle from_counts(const std::vector<int64_t>& counts, int64_t height, int64_t width) {
  return dpad::rle_from_counts({"rles", 3}, counts.data(), counts.size(), height, width);
}

}  // namespace

TEST(the_example_of_the_coco_api) {
  // Its documentation: the pixels 0 0 1 1 1 0 1 have the counts 2 3 1 1.
  const uint8_t pixels[] = {0, 0, 1, 1, 1, 0, 1};
  const dpad::Rle rle = dpad::rle_from_columns(pixels, 7, 1);
  CHECK(rle.counts == (Counts{2, 3, 1, 1}));
  CHECK(dpad::rle_to_string(rle) == "231N");  // from the fourth on less the one before the last: 1 - 3
  CHECK(from_string("231N", 7, 1).counts == rle.counts);
  CHECK(dpad::rle_area(rle) == 4);
  uint8_t back[7];
  dpad::rle_to_columns(rle, back);
  for (int i = 0; i < 7; ++i) CHECK(back[i] == pixels[i]);
}

TEST(a_box_and_words_of_runs_over_several_columns) {
  const dpad::Rle rle = from_counts({4, 6, 5}, 5, 3);  // the last pixel of column 0, all of column 1
  const dpad::PixelBox box = dpad::rle_box(rle);
  CHECK(box.x1 == 0 && box.y1 == 0 && box.x2 == 2 && box.y2 == 5);
  std::vector<uint64_t> words(5, ~uint64_t{0});
  int64_t area = 0;
  dpad::PixelBox found;
  dpad::rle_to_words(rle, words.data(), &area, &found);
  CHECK(words == (std::vector<uint64_t>{2, 2, 2, 2, 3}));
  CHECK(area == 6);
  CHECK(dpad::rle_from_words(words.data(), 5, 3, found).counts == rle.counts);
  const dpad::CompactMask compact(rle);
  CHECK(compact.area == 6);
  CHECK(dpad::intersect(compact.view(), compact.view()) == 6);
}

TEST(union_and_intersection) {
  const dpad::Rle a = from_counts({1, 3, 6}, 10, 1), b = from_counts({2, 4, 4}, 10, 1);
  CHECK(dpad::rle_merge({a, b}, false).counts == (Counts{1, 5, 4}));
  CHECK(dpad::rle_merge({a, b}, true).counts == (Counts{2, 2, 6}));
  CHECK(dpad::rle_merge({a}, true).counts == a.counts);
  CHECK(dpad::rle_merge({}, true).counts.empty());
}

TEST(iou_with_truths_of_every_kind) {
  const auto truth = [](const dpad::Rle& rle, bool crowd) {
    return dpad::RleTruth{dpad::CompactMask(rle), rle.height, rle.width, crowd};
  };
  const dpad::Rle detection = from_counts({1, 4, 5}, 5, 2);  // 4 pixels, of which 3 are in the next
  const dpad::Rle other = from_counts({2, 6, 2}, 5, 2), apart = from_counts({9, 1}, 5, 2),
                  none = from_counts({10}, 5, 2);
  const dpad::Rle larger = from_counts({0, 12}, 6, 2);  // of another size
  const std::vector<dpad::RleTruth> truths{truth(detection, false), truth(other, false), truth(other, true),
                                           truth(apart, true),      truth(none, true),   truth(larger, false)};
  std::vector<double> out(12, 7);
  dpad::rle_iou(detection, truths, 2, out.data());
  CHECK(out == (std::vector<double>{1, 7, 3.0 / 7, 7, 3.0 / 4, 7, 0, 7, 0, 7, -1, 7}));
  dpad::rle_iou(none, truths, 2, out.data() + 1);
  for (size_t i = 1; i < 12; i += 2) CHECK(out[i] == 0);
}

TEST(bad_runs_are_named) {
  CHECK_INVALID(from_string("231", 7, 1), "rles[3]: counts add up to 6, expected 7 x 1 = 7");
  CHECK_INVALID(from_string("23\x7f", 7, 1), "rles[3]: counts has a character outside '0'..'o' at position 2");
  CHECK_INVALID(from_string("2P", 7, 1), "rles[3]: counts ends in the middle of a number");
  CHECK_INVALID(from_string("2N", 7, 1), "rles[3]: counts[1] is -2, expected 0 to 7");
  CHECK_INVALID(from_counts({2, -1, 6}, 7, 1), "rles[3]: counts[1] is -1, expected 0 to 7");
  CHECK_INVALID(from_counts({2, 8}, 7, 1), "rles[3]: counts[1] is 8, expected 0 to 7");
}
