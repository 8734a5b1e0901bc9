// Coverage-guided fuzzing (libFuzzer) of what reads numbers from outside: RLE strings, run lengths, polygons, boxes.
//
// Bad input must end in std::invalid_argument and nothing else; good input must come out the same whichever way it is
// taken: bytes, bits, runs and counts are compared with one another. `make fuzz` builds this with ASan and UBSan.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/masks/polygons.h"
#include "core/masks/rle.h"

namespace {

using dpad::PixelBox;

#define REQUIRE(condition)                                                 \
  do {                                                                     \
    if (!(condition)) {                                                    \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                        \
    }                                                                      \
  } while (false)

class Reader {
 public:
  Reader(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  template <typename T>
  T take() {
    T value{};
    const size_t n = size_ < sizeof(T) ? size_ : sizeof(T);
    std::memcpy(&value, data_, n);
    data_ += n;
    size_ -= n;
    return value;
  }
  size_t left() const { return size_; }
  const char* text() const { return reinterpret_cast<const char*>(data_); }

 private:
  const uint8_t* data_;
  size_t size_;
};

bool same(const PixelBox& a, const PixelBox& b) { return a.x1 == b.x1 && a.y1 == b.y1 && a.x2 == b.x2 && a.y2 == b.y2; }

void check_runs(const dpad::Rle& rle) {
  const size_t pixels = static_cast<size_t>(rle.height * rle.width);
  std::vector<uint8_t> columns(pixels), rows(pixels), drawn(pixels);
  dpad::rle_to_columns(rle, columns.data());
  const dpad::Rle again = dpad::rle_from_columns(columns.data(), rle.height, rle.width);
  const std::string text = dpad::rle_to_string(again);
  REQUIRE(dpad::rle_from_string({"again", 0}, text.data(), text.size(), rle.height, rle.width).counts == again.counts);

  std::vector<uint64_t> words(static_cast<size_t>(rle.height * dpad::words_for(rle.width)), ~uint64_t{0});
  int64_t area = 0;
  PixelBox box;
  dpad::rle_to_words(rle, words.data(), &area, &box);
  REQUIRE(area == dpad::rle_area(rle));
  dpad::unpack_masks(words.data(), 1, rle.height, rle.width, 1, drawn.data());
  for (int64_t y = 0; y < rle.height; ++y)
    for (int64_t x = 0; x < rle.width; ++x)
      REQUIRE(drawn[static_cast<size_t>(y * rle.width + x)] == columns[static_cast<size_t>(x * rle.height + y)]);
  REQUIRE(dpad::rle_from_words(words.data(), rle.height, rle.width, box).counts == again.counts);

  int64_t measured_area = 0;
  PixelBox measured;
  dpad::measure(words.data(), rle.height, rle.width, &measured_area, &measured);
  REQUIRE(measured_area == area && same(measured, box));
  const dpad::CompactMask compact(rle);
  REQUIRE(dpad::intersect(compact.view(), compact.view()) == area && same(compact.box, box));
  const dpad::PackedView packed{words.data(), &area, &box, 1, rle.height, rle.width};
  int64_t both = -1, either = -1;
  REQUIRE(dpad::dense_matrix_counts(drawn.data(), 1, packed, 1, &both, &either) <= 1);
  REQUIRE(both == area && either == area);
  double iou = -1;
  dpad::rle_iou(rle, {{dpad::CompactMask(again), again.height, again.width, false}}, 1, &iou);
  REQUIRE(iou == (area == 0 ? 0.0 : 1.0));
  REQUIRE(dpad::rle_area(dpad::rle_merge({rle, again}, true)) == area);
  REQUIRE(dpad::rle_area(dpad::rle_merge({rle, again}, false)) == area);
}

// The table in use against plain C++, on bytes that are text to one loop and pixels to the other.
void check_tables(const Reader& in) {
  const dpad::MaskTable &fast = dpad::mask_table(), &plain = dpad::kMaskScalar;
  const int64_t length = static_cast<int64_t>(in.left());
  std::vector<int16_t> values(in.left() + 64), expected(values);
  int64_t used = 0, expected_used = 0;
  const int64_t found = fast.short_numbers(in.text(), length, &used, values.data());
  REQUIRE(found == plain.short_numbers(in.text(), length, &expected_used, expected.data()) && used == expected_used);
  REQUIRE(std::equal(values.begin(), values.begin() + found, expected.begin()));

  const auto* bytes = reinterpret_cast<const uint8_t*>(in.text());
  std::vector<uint32_t> places(in.left() + 1), expected_places(places);
  bool last = length % 2 != 0, expected_last = last;
  const int64_t changed = fast.changes(bytes, length, &last, places.data());
  REQUIRE(changed == plain.changes(bytes, length, &expected_last, expected_places.data()) && last == expected_last);
  REQUIRE(std::equal(places.begin(), places.begin() + changed, expected_places.begin()));
}

void fuzz_string(Reader in) {
  const int64_t height = in.take<uint8_t>(), width = in.take<uint8_t>();
  check_tables(in);
  check_runs(dpad::rle_from_string({"fuzz", 0}, in.text(), in.left(), height, width));
}

void fuzz_counts(Reader in) {
  const int64_t height = in.take<uint8_t>(), width = in.take<uint8_t>();
  std::vector<int64_t> counts;
  int64_t left = height * width;
  while (in.left() > 0) {
    const uint8_t code = in.take<uint8_t>();
    const int64_t count = code == 255 ? in.take<int64_t>() : code;
    counts.push_back(count);
    left -= count < (1 << 20) && count > -(1 << 20) ? count : 0;
  }
  counts.push_back(left);
  check_runs(dpad::rle_from_counts({"fuzz", 0}, counts.data(), counts.size(), height, width));
}

// Numbers near the image, on its grid, or any bits at all.
double coordinate(Reader& in, uint8_t style) {
  if (style % 4 == 3) return in.take<double>();
  const double value = in.take<int16_t>();
  return style % 4 == 0 ? value / 64 : style % 4 == 1 ? value : value * 300.0;
}

void fuzz_polygons(Reader in) {
  const int64_t height = in.take<uint8_t>(), width = in.take<uint8_t>();
  const uint8_t style = in.take<uint8_t>();
  const auto rule = static_cast<dpad::PolygonRule>(in.take<uint8_t>() % 3);
  std::vector<double> vertices;
  std::vector<int64_t> rings{0}, objects{0};
  while (in.left() > 1 && vertices.size() < 400) {
    const uint8_t code = in.take<uint8_t>();
    for (int i = 0; i < code % 16; ++i) {
      vertices.push_back(coordinate(in, style));
      vertices.push_back(coordinate(in, style));
    }
    rings.push_back(static_cast<int64_t>(vertices.size() / 2));
    if (code & 16) objects.push_back(static_cast<int64_t>(rings.size() - 1));
  }
  if (objects.back() != static_cast<int64_t>(rings.size() - 1))
    objects.push_back(static_cast<int64_t>(rings.size() - 1));
  const int64_t n = static_cast<int64_t>(objects.size() - 1);
  const dpad::PolygonBatch batch{vertices.data(), rings.data(), objects.data(), n};
  dpad::check_polygons(batch, static_cast<int64_t>(vertices.size() / 2), static_cast<int64_t>(rings.size() - 1));

  const size_t size = static_cast<size_t>(height * dpad::words_for(width));
  std::vector<uint64_t> words(size * static_cast<size_t>(n), ~uint64_t{0});
  std::vector<uint8_t> dense(static_cast<size_t>(n * height * width), 7), unpacked(dense.size());
  std::vector<int64_t> area(static_cast<size_t>(n)), intersection(area), uni(area);
  std::vector<PixelBox> box(static_cast<size_t>(n));
  dpad::draw_polygons(batch, height, width, rule, 1, false, words.data(), area.data(), box.data());
  dpad::draw_polygons_dense(batch, height, width, rule, 1, false, dense.data());
  dpad::unpack_masks(words.data(), n, height, width, 1, unpacked.data());
  REQUIRE(dense == unpacked);
  std::vector<uint64_t> packed(words.size(), ~uint64_t{0});
  std::vector<int64_t> packed_area(area.size());
  std::vector<PixelBox> packed_box(box.size());
  dpad::pack_masks(dense.data(), n, height, width, 1, packed.data(), packed_area.data(), packed_box.data());
  REQUIRE(packed == words && packed_area == area && std::equal(box.begin(), box.end(), packed_box.begin(), same));
  const std::vector<dpad::Rle> rles = dpad::polygons_to_rle(batch, height, width, rule, 1);
  const dpad::PackedView masks{words.data(), area.data(), box.data(), n, height, width};
  dpad::polygon_counts(batch, rule, masks, nullptr, nullptr, 1, intersection.data(), uni.data());
  for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
    REQUIRE(intersection[i] == area[i] && uni[i] == area[i] && dpad::rle_area(rles[i]) == area[i]);
    int64_t measured_area = 0;
    PixelBox measured;
    dpad::measure(words.data() + i * size, height, width, &measured_area, &measured);
    REQUIRE(measured_area == area[i] && same(measured, box[i]));
  }
}

// Boxes are polygons of four vertices to the core; here their pixels are known without drawing.
void fuzz_box(Reader in) {
  const int64_t height = in.take<uint8_t>(), width = in.take<uint8_t>();
  const uint8_t style = in.take<uint8_t>();
  double c[4];
  for (double& value : c) value = coordinate(in, style);
  const double vertices[8] = {c[0], c[1], c[2], c[1], c[2], c[3], c[0], c[3]};
  const int64_t rings[2] = {0, 4}, objects[2] = {0, 1};
  const dpad::PolygonBatch batch{vertices, rings, objects, 1};
  dpad::check_polygons(batch, 4, 1);
  std::vector<uint8_t> dense(static_cast<size_t>(height * width), 7);
  dpad::draw_polygons_dense(batch, height, width, dpad::PolygonRule::center, 1, false, dense.data());
  const double x1 = std::fmin(c[0], c[2]), x2 = std::fmax(c[0], c[2]), y1 = std::fmin(c[1], c[3]),
               y2 = std::fmax(c[1], c[3]);
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x) {
      const double px = static_cast<double>(x) + .5, py = static_cast<double>(y) + .5;
      REQUIRE(dense[static_cast<size_t>(y * width + x)] == (x1 <= px && px < x2 && y1 <= py && py < y2));
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 4) return 0;
  Reader in(data + 1, size - 1);
  try {
    switch (data[0] % 4) {
      case 0:
        fuzz_string(in);
        break;
      case 1:
        fuzz_counts(in);
        break;
      case 2:
        fuzz_polygons(in);
        break;
      default:
        fuzz_box(in);
    }
  } catch (const std::invalid_argument&) {
    return 0;  // refused by name, as it should be
  }
  return 0;
}
