#include "core/masks/rle.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace dpad {

namespace {

[[noreturn]] void reject(const ItemName& name, const std::string& what) {
  throw std::invalid_argument(name.text() + ": " + what);
}

void check_total(const ItemName& name, int64_t total, int64_t height, int64_t width) {
  if (total != height * width)
    reject(name, "counts add up to " + std::to_string(total) + ", expected " + std::to_string(height) + " x " +
                     std::to_string(width) + " = " + std::to_string(height * width));
}

// The set runs of a mask. They lie in memory that each thread keeps, so a thread may have one of these at a time.
class Runs {
 public:
  explicit Runs(const Rle& rle) {
    thread_local std::vector<int32_t> kept;
    memory_ = &kept;
    const size_t max_runs = rle.counts.size() / 2 + static_cast<size_t>(rle.width + kColumnSlack);
    if (kept.size() < 3 * max_runs) kept.resize(3 * max_runs);
    found_ = {kept.data(), kept.data() + max_runs, kept.data() + 2 * max_runs};
    if (rle.height > 0)
      mask_table().column_runs(rle.counts.data(), static_cast<int64_t>(rle.counts.size()), rle.height, found_);
  }
  Runs(const Runs&) = delete;
  Runs& operator=(const Runs&) = delete;
  ~Runs() {
    if (memory_->size() > 2 * kScratchWords) std::vector<int32_t>().swap(*memory_);
  }

  const ColumnRuns& operator*() const { return found_; }
  const ColumnRuns* operator->() const { return &found_; }
  PixelBox box() const {
    if (found_.n == 0) return {};
    return {found_.x[0], found_.top, found_.x[found_.n - 1] + 1, found_.bottom};
  }

 private:
  std::vector<int32_t>* memory_;
  ColumnRuns found_;
};

// Marks where each run starts and ends and folds the marks down the rows: no pixel is visited.
void draw_box(const ColumnRuns& runs, const PixelBox& box, uint64_t* out, int64_t stride) {
  const int64_t first = box.x1 / 64, rows = box.y2 - box.y1, words = words_for(box.x2) - first;
  thread_local std::vector<uint64_t> scratch;  // all 0 between calls: folding clears what it reads
  std::vector<uint64_t>& marks = scratch;      // looked up once, because each look-up of a thread_local is a call
  if (marks.size() < static_cast<size_t>(rows * words)) marks.resize(static_cast<size_t>(rows * words), 0);
  for (int64_t i = 0; i < runs.n; ++i) {
    uint64_t* column = marks.data() + (runs.x[i] / 64 - first);
    const uint64_t bit = uint64_t{1} << (runs.x[i] & 63);
    column[(runs.begin[i] - box.y1) * words] ^= bit;
    if (runs.end[i] < box.y2) column[(runs.end[i] - box.y1) * words] ^= bit;
  }
  mask_table().fold_draw({marks.data(), nullptr, rows, words, ~uint64_t{0}, true}, {out, stride, false});
  if (marks.size() > kScratchWords) std::vector<uint64_t>().swap(marks);
}

}  // namespace

namespace {

// One number of a compressed string, of any length; `at` moves behind it.
int64_t read_number(const ItemName& name, const char* text, size_t length, size_t& at) {
  uint64_t value = 0;
  int shift = 0;
  uint32_t bits = 0;
  do {
    if (at >= length) reject(name, "counts ends in the middle of a number");
    bits = static_cast<uint32_t>(static_cast<unsigned char>(text[at])) - 48;
    if (bits > 63) reject(name, "counts has a character outside '0'..'o' at position " + std::to_string(at));
    if (shift > 35) reject(name, "counts has a number of more than 8 characters at position " + std::to_string(at));
    value |= static_cast<uint64_t>(bits & 31) << shift;
    shift += 5;
    ++at;
  } while (bits & 32);
  if (bits & 16) value |= ~uint64_t{0} << shift;
  return static_cast<int64_t>(value);
}

}  // namespace

Rle rle_from_string(const ItemName& name, const char* text, size_t length, int64_t height, int64_t width) {
  constexpr size_t kChunk = 512;
  Rle rle{height, width, {}};
  rle.counts.resize(length);
  uint32_t* const counts = rle.counts.data();
  const MaskTable& table = mask_table();
  const int64_t pixels = height * width;
  int64_t total = 0;
  size_t done = 0;
  const auto add = [&](int64_t value) {
    const int64_t count = value + (done > 2 ? static_cast<int64_t>(counts[done - 2]) : 0);
    if (static_cast<uint64_t>(count) > static_cast<uint64_t>(pixels))
      reject(name, "counts[" + std::to_string(done) + "] is " + std::to_string(count) + ", expected 0 to " +
                       std::to_string(pixels));
    total += count;
    counts[done++] = static_cast<uint32_t>(count);
  };
  int16_t values[kChunk + 64];
  for (size_t i = 0; i < length;) {
    const size_t chunk = std::min(kChunk, length - i);
    int64_t used = 0, k = 0;
    const int64_t found = table.short_numbers(text + i, static_cast<int64_t>(chunk), &used, values);
    while (k < found && done < 3) add(values[k++]);
    int64_t sum = 0;
    if (k < found && table.add_differences(values + k, found - k, static_cast<uint32_t>(pixels), counts + done, &sum)) {
      total += sum;
      done += static_cast<size_t>(found - k);
      k = found;
    }
    while (k < found) add(values[k++]);  // one by one, so that the error names the wrong one
    i += static_cast<size_t>(used);
    if (used < static_cast<int64_t>(chunk)) add(read_number(name, text, length, i));
  }
  rle.counts.resize(done);
  check_total(name, total, height, width);
  return rle;
}

Rle rle_from_counts(const ItemName& name, const int64_t* counts, size_t length, int64_t height, int64_t width) {
  Rle rle{height, width, {}};
  rle.counts.reserve(length);
  const int64_t pixels = height * width;
  int64_t total = 0;
  for (size_t i = 0; i < length; ++i) {
    if (counts[i] < 0 || counts[i] > pixels)
      reject(name, "counts[" + std::to_string(i) + "] is " + std::to_string(counts[i]) + ", expected 0 to " +
                       std::to_string(pixels));
    total += counts[i];
    rle.counts.push_back(static_cast<uint32_t>(counts[i]));
  }
  check_total(name, total, height, width);
  return rle;
}

std::string rle_to_string(const Rle& rle) {
  std::string text;
  text.reserve(rle.counts.size() * 2 + 8);
  for (size_t i = 0; i < rle.counts.size(); ++i) {
    int64_t value = rle.counts[i];
    if (i > 2) value -= rle.counts[i - 2];
    for (bool more = true; more;) {
      const int64_t bits = value & 31;
      value >>= 5;
      more = value != ((bits & 16) != 0 ? -1 : 0);
      text.push_back(static_cast<char>(48 + bits + (more ? 32 : 0)));
    }
  }
  return text;
}

int64_t rle_area(const Rle& rle) {
  int64_t area = 0;
  for (size_t i = 1; i < rle.counts.size(); i += 2) area += rle.counts[i];
  return area;
}

PixelBox rle_box(const Rle& rle) { return Runs(rle).box(); }

Rle rle_from_columns(const uint8_t* columns, int64_t height, int64_t width) {
  constexpr int64_t kChunk = 4096;
  Rle rle{height, width, {}};
  const MaskTable& table = mask_table();
  const int64_t pixels = height * width;
  bool last = false;  // the pixel before this chunk
  int64_t start = 0;
  uint32_t changes[kChunk];
  for (int64_t chunk = 0; chunk < pixels; chunk += kChunk) {
    const int64_t found = table.changes(columns + chunk, std::min(kChunk, pixels - chunk), &last, changes);
    for (int64_t i = 0; i < found; ++i) {
      const int64_t here = chunk + changes[i];
      rle.counts.push_back(static_cast<uint32_t>(here - start));
      start = here;
    }
  }
  rle.counts.push_back(static_cast<uint32_t>(pixels - start));
  return rle;
}

void rle_to_columns(const Rle& rle, uint8_t* columns) {
  for (size_t i = 0; i < rle.counts.size(); ++i) {
    if (rle.counts[i] == 0) continue;  // memset may not be given the null pointer of a mask without pixels
    std::memset(columns, static_cast<int>(i % 2), rle.counts[i]);
    columns += rle.counts[i];
  }
}

namespace {

Rle merge_two(const Rle& a, const Rle& b, bool intersect) {
  Rle out{a.height, a.width, {}};
  const int64_t pixels = a.height * a.width;
  size_t next_a = 0, next_b = 0;
  int64_t end_a = 0, end_b = 0, at = 0, start = 0;
  bool value = false;
  while (at < pixels) {
    while (end_a <= at) end_a += a.counts[next_a++];
    while (end_b <= at) end_b += b.counts[next_b++];
    const bool in_a = next_a % 2 == 0, in_b = next_b % 2 == 0;  // run 1, 3, ... are set, and next is one past
    const bool now = intersect ? in_a && in_b : in_a || in_b;
    if (now != value) {
      out.counts.push_back(static_cast<uint32_t>(at - start));
      start = at;
      value = now;
    }
    at = std::min(end_a, end_b);
  }
  out.counts.push_back(static_cast<uint32_t>(pixels - start));
  return out;
}

}  // namespace

Rle rle_merge(const std::vector<Rle>& rles, bool intersect) {
  if (rles.empty()) return {};
  Rle merged = rles[0];
  for (size_t i = 1; i < rles.size(); ++i) merged = merge_two(merged, rles[i], intersect);
  return merged;
}

void rle_to_words(const Rle& rle, uint64_t* words, int64_t* area, PixelBox* box) {
  const int64_t stride = words_for(rle.width);
  std::fill_n(words, rle.height * stride, uint64_t{0});
  const Runs runs(rle);
  *area = runs->pixels;
  *box = runs.box();
  if (*area > 0) draw_box(*runs, *box, words + box->y1 * stride + box->x1 / 64, stride);
}

CompactMask::CompactMask(const Rle& rle) {
  const Runs runs(rle);
  area = runs->pixels;
  box = runs.box();
  if (area == 0) return;
  const int64_t first = box.y1 / 64, stride = words_for(box.y2) - first;
  words.resize(static_cast<size_t>((box.x2 - box.x1) * stride + kColumnSlack));
  mask_table().fill_columns(*runs, {box.x1, 64 * first, stride, words.data()});
}

MaskView CompactMask::view() const {
  return {words.data(), words_for(box.y2) - box.y1 / 64, box.y1 / 64, {box.y1, box.x1, box.y2, box.x2}};
}

void rle_iou(const Rle& detection, const std::vector<RleTruth>& truths, int64_t step, double* out) {
  const CompactMask mask(detection);
  for (const RleTruth& truth : truths) {
    double& iou = *out;
    out += step;
    iou = 0;
    if (!boxes_overlap(mask.box, truth.mask.box)) continue;
    if (detection.height != truth.height || detection.width != truth.width) {
      iou = -1;
      continue;
    }
    const int64_t both = intersect(mask.view(), truth.mask.view());
    iou = iou_ratio(both, mask.area + (truth.crowd ? 0 : truth.mask.area - both), 0);
  }
}

namespace {

// Transposes 64 x 64 bits in place: bit c of word r goes to bit r of word c.
void transpose64(uint64_t* block) {
  uint64_t mask = 0x00000000ffffffffULL;
  for (int step = 32; step != 0; step >>= 1, mask ^= mask << step) {
    for (int k = 0; k < 64; k = (k + step + 1) & ~step) {
      const uint64_t swap = (block[k] >> step ^ block[k + step]) & mask;
      block[k] ^= swap << step;
      block[k + step] ^= swap;
    }
  }
}

}  // namespace

Rle rle_from_words(const uint64_t* words, int64_t height, int64_t width, const PixelBox& box) {
  Rle rle{height, width, {}};
  const int64_t stride = words_for(width), first = box.y1 / 64, blocks = words_for(box.y2) - first;
  std::vector<uint64_t> columns(static_cast<size_t>(64 * std::max<int64_t>(blocks, 0)));  // [block, column]
  int64_t start = 0;
  bool value = false;
  const auto change = [&](int64_t position) {
    rle.counts.push_back(static_cast<uint32_t>(position - start));
    start = position;
    value = !value;
  };
  for (int64_t word = box.x1 / 64; word < words_for(box.x2); ++word) {
    for (int64_t block = 0; block < blocks; ++block) {
      uint64_t* out = columns.data() + 64 * block;
      const int64_t top = (first + block) * 64;
      for (int64_t k = 0; k < 64; ++k) out[k] = top + k < height ? words[(top + k) * stride + word] : 0;
      transpose64(out);
    }
    for (int64_t x = std::max(word * 64, box.x1); x < std::min(word * 64 + 64, box.x2); ++x) {
      if (value && first > 0) change(x * height);
      for (int64_t block = 0; block < blocks; ++block) {
        const uint64_t column = columns[static_cast<size_t>(64 * block + (x & 63))];
        const int64_t top = (first + block) * 64;
        uint64_t changes = column ^ (column << 1 | static_cast<uint64_t>(value));
        if (height - top < 64) changes &= (uint64_t{1} << (height - top)) - 1;
        for (; changes != 0; changes &= changes - 1) change(x * height + top + __builtin_ctzll(changes));
      }
      if (value && (first + blocks) * 64 < height) change(x * height + (first + blocks) * 64);
    }
  }
  if (value && box.x2 < width) change(box.x2 * height);
  rle.counts.push_back(static_cast<uint32_t>(height * width - start));
  return rle;
}

}  // namespace dpad
