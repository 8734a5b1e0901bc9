#include "core/masks/masks.h"

#include <vector>

#include "check.h"

namespace {

// N masks of one size in both forms.
struct Masks {
  int64_t n, height, width;
  std::vector<uint8_t> dense;
  std::vector<uint64_t> words;
  std::vector<int64_t> area;
  std::vector<dpad::PixelBox> box;

  Masks(int64_t n, int64_t height, int64_t width, uint64_t seed) : n(n), height(height), width(width) {
    for (int64_t i = 0; i < n * height * width; ++i) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      dense.push_back(static_cast<uint8_t>(seed >> 62 == 0 ? seed >> 40 : 0));
    }
    pack();
  }
  void pack() {
    words.assign(static_cast<size_t>(n * height * dpad::words_for(width)), ~uint64_t{0});
    area.resize(static_cast<size_t>(n));
    box.resize(static_cast<size_t>(n));
    dpad::pack_masks(dense.data(), n, height, width, 2, words.data(), area.data(), box.data());
  }
  dpad::PackedView view() const { return {words.data(), area.data(), box.data(), n, height, width}; }
  bool at(int64_t i, int64_t pixel) const { return dense[static_cast<size_t>(i * height * width + pixel)] != 0; }
};

struct Expected {
  int64_t intersection = 0, uni = 0;
};

Expected count(const Masks& a, int64_t i, const Masks& b, int64_t j, const Masks* ignore, int64_t k) {
  Expected out;
  for (int64_t pixel = 0; pixel < a.height * a.width; ++pixel) {
    if (ignore != nullptr && ignore->at(k, pixel)) continue;
    out.intersection += a.at(i, pixel) && b.at(j, pixel);
    out.uni += a.at(i, pixel) || b.at(j, pixel);
  }
  return out;
}

}  // namespace

TEST(bytes_become_bits_and_bytes_again) {
  Masks masks(1, 3, 70, 1);
  std::fill(masks.dense.begin(), masks.dense.end(), uint8_t{0});
  masks.dense[1 * 70 + 3] = masks.dense[2 * 70 + 69] = 200;
  masks.pack();
  CHECK(masks.words == (std::vector<uint64_t>{0, 0, 8, 0, 0, 32}));
  CHECK(masks.area[0] == 2);
  const dpad::PixelBox& box = masks.box[0];
  CHECK(box.x1 == 3 && box.y1 == 1 && box.x2 == 70 && box.y2 == 3);
  std::vector<uint8_t> back(3 * 70, 7);
  dpad::unpack_masks(masks.words.data(), 1, 3, 70, 1, back.data());
  for (size_t i = 0; i < back.size(); ++i) CHECK(back[i] == (masks.dense[i] != 0));
  int64_t area = -1;
  dpad::PixelBox measured;
  dpad::measure(masks.words.data(), 3, 70, &area, &measured);
  CHECK(area == 2 && measured.x1 == 3 && measured.y2 == 3);
}

TEST(every_byte_is_looked_at_while_it_is_read) {
  constexpr int64_t kHeight = 5, kWidth = 131, kPixels = kHeight * kWidth;
  std::vector<uint8_t> dense(2 * kPixels, 1), ones(2 * kPixels, 1);
  std::vector<uint64_t> words(2 * kHeight * dpad::words_for(kWidth));
  int64_t first[4], second[4];
  dpad::PixelBox box[2];
  const auto pack = [&](const std::vector<uint8_t>& masks) {
    return dpad::pack_masks(masks.data(), 2, kHeight, kWidth, 2, words.data(), first, box);
  };
  const auto pairs = [&](const uint8_t* a, const uint8_t* b, const uint8_t* ignore) {
    return dpad::dense_pair_counts(a, b, ignore, kPixels, 2, kPixels, 2, first, second);
  };
  CHECK(pack(dense) == 1 && pairs(dense.data(), dense.data(), dense.data()) == 1);
  CHECK(pack(std::vector<uint8_t>(2 * kPixels)) == 0);
  for (size_t i = 0; i < dense.size(); ++i) {
    dense[i] = 4;
    CHECK(pack(dense) == 5);
    CHECK(pairs(dense.data(), ones.data(), nullptr) == 5 && pairs(ones.data(), dense.data(), nullptr) == 5);
    CHECK(pairs(ones.data(), ones.data(), dense.data()) == 5);
    pack(ones);
    int64_t both[4], either[4];
    const dpad::PackedView truth{words.data(), first, box, 2, kHeight, kWidth};
    CHECK(dpad::dense_matrix_counts(dense.data(), 2, truth, 2, both, either) == 5);
    dense[i] = 1;
  }
}

TEST(an_empty_mask_has_a_box_of_zeros) {
  Masks masks(1, 4, 5, 1);
  std::fill(masks.dense.begin(), masks.dense.end(), uint8_t{0});
  masks.pack();
  const dpad::PixelBox& box = masks.box[0];
  CHECK(masks.area[0] == 0 && box.x1 == 0 && box.y1 == 0 && box.x2 == 0 && box.y2 == 0);
}

TEST(counts_are_those_of_the_pixels) {
  const Masks a(3, 9, 130, 2), b(3, 9, 130, 3), each(3, 9, 130, 4), one(1, 9, 130, 5);
  const dpad::PackedView views[] = {each.view(), one.view()};
  for (const Masks* ignore : {static_cast<const Masks*>(nullptr), &each, &one}) {
    const dpad::PackedView* skip = ignore == nullptr ? nullptr : ignore == &each ? &views[0] : &views[1];
    std::vector<int64_t> intersection(9, -1), uni(9, -1);
    dpad::packed_matrix_counts(a.view(), b.view(), skip, 2, intersection.data(), uni.data());
    for (int64_t i = 0; i < 3; ++i)
      for (int64_t j = 0; j < 3; ++j) {
        const Expected expected = count(a, i, b, j, ignore, ignore == &each ? j : 0);
        CHECK(intersection[static_cast<size_t>(3 * i + j)] == expected.intersection);
        CHECK(uni[static_cast<size_t>(3 * i + j)] == expected.uni);
      }
    std::vector<int64_t> dense_intersection(9), dense_uni(9);
    if (ignore == nullptr) {
      dpad::dense_matrix_counts(a.dense.data(), 3, b.view(), 2, dense_intersection.data(), dense_uni.data());
      CHECK(dense_intersection == intersection && dense_uni == uni);
    }
    dpad::packed_pair_counts(a.view(), b.view(), skip, 1, intersection.data(), uni.data());
    dpad::dense_pair_counts(a.dense.data(), b.dense.data(), ignore == nullptr ? nullptr : ignore->dense.data(),
                            ignore == &each ? 9 * 130 : 0, 3, 9 * 130, 1, dense_intersection.data(), dense_uni.data());
    for (size_t i = 0; i < 3; ++i) {
      const auto row = static_cast<int64_t>(i);
      const Expected expected = count(a, row, b, row, ignore, ignore == &each ? row : 0);
      CHECK(intersection[i] == expected.intersection && uni[i] == expected.uni);
      CHECK(dense_intersection[i] == expected.intersection && dense_uni[i] == expected.uni);
    }
  }
}

TEST(iou_of_nothing_is_what_the_caller_says) {
  const int64_t intersection[] = {0, 1}, uni[] = {0, 4};
  double out[2];
  dpad::iou_ratios(intersection, uni, 2, 0.5, out);
  CHECK(out[0] == 0.5 && out[1] == 0.25);
}

TEST(sizes_have_limits) {
  CHECK(dpad::mask_size_fits(16384, 16384));
  CHECK(!dpad::mask_size_fits(65536, 1));
  CHECK(!dpad::mask_size_fits(16385, 16384));
  CHECK_INVALID(dpad::check_mask_size("size", -1, 2), "size must not be negative, got -1 x 2");
  CHECK_INVALID(dpad::check_mask_size("size", 65536, 1), "size is too large");
}
