#include "core/masks/masks.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <string>
#include <utility>

#include "core/masks/loops.h"

namespace dpad {

void check_mask_size(const char* name, int64_t height, int64_t width) {
  if (mask_size_fits(height, width)) return;
  const std::string got = std::to_string(height) + " x " + std::to_string(width);
  if (height < 0 || width < 0) throw std::invalid_argument(std::string(name) + " must not be negative, got " + got);
  throw std::invalid_argument(std::string(name) + " is too large: at most 65535 a side and 2^28 pixels, got " + got);
}

MaskView PackedView::view(int64_t i) const {
  const PixelBox& b = box[i];
  return {words + i * mask_words() + b.y1 * stride() + b.x1 / 64, stride(), 0, b};
}

PixelBox box_of(const Extent& extent, int64_t words) {
  if (extent.area == 0) return {};
  int64_t left = 0, right = words - 1;
  while (extent.columns[left] == 0) ++left;
  while (extent.columns[right] == 0) --right;
  return {left * 64 + __builtin_ctzll(extent.columns[left]), extent.top,
          right * 64 + 64 - __builtin_clzll(extent.columns[right]), extent.bottom + 1};
}

void measure(const uint64_t* words, int64_t height, int64_t width, int64_t* area, PixelBox* box) {
  const int64_t stride = words_for(width);
  uint64_t columns[words_for(kMaxSide)];
  std::fill_n(columns, stride, uint64_t{0});
  Extent extent{columns};
  mask_table().measure(words, height, stride, extent);
  *area = extent.area;
  *box = box_of(extent, stride);
}

namespace {

// The OR of the bytes that several threads read.
class ByteOr {
 public:
  void add(uint8_t bytes) { all_.fetch_or(bytes, std::memory_order_relaxed); }
  uint8_t get() const { return all_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint8_t> all_{0};
};

uint8_t pack_mask(const uint8_t* dense, int64_t height, int64_t width, uint64_t* words, int64_t* area, PixelBox* box) {
  const int64_t stride = words_for(width);
  uint64_t columns[words_for(kMaxSide)];
  std::fill_n(columns, stride, uint64_t{0});
  Extent extent{columns};
  const uint8_t bytes = mask_table().pack(dense, height, width, words, extent);
  *area = extent.area;
  *box = box_of(extent, stride);
  return bytes;
}

}  // namespace

uint8_t pack_masks(const uint8_t* dense, int64_t n, int64_t height, int64_t width, int threads, uint64_t* words,
                   int64_t* area, PixelBox* box) {
  const int64_t size = height * words_for(width);
  ByteOr bytes;
  for_masks(n, height * width, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      bytes.add(pack_mask(dense + i * height * width, height, width, words + i * size, area + i, box + i));
  });
  return bytes.get();
}

void unpack_masks(const uint64_t* words, int64_t n, int64_t height, int64_t width, int threads, uint8_t* dense) {
  const MaskTable& table = mask_table();
  const int64_t stride = words_for(width);
  for_masks(n * height, width, threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) table.unpack_row(words + row * stride, width, dense + row * width);
  });
}

uint8_t dense_pair_counts(const uint8_t* a, const uint8_t* b, const uint8_t* ignore, int64_t ignore_step, int64_t n,
                          int64_t pixels, int threads, int64_t* intersection, int64_t* uni) {
  const MaskTable& table = mask_table();
  ByteOr bytes;
  for_masks(n, 2 * pixels, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const uint8_t* skip = ignore == nullptr ? nullptr : ignore + i * ignore_step;
      const Counts counts = table.dense_counts(a + i * pixels, b + i * pixels, skip, pixels);
      intersection[i] = counts.intersection;
      uni[i] = counts.uni;
      bytes.add(counts.bytes);
    }
  });
  return bytes.get();
}

int64_t intersect(const MaskView& a, const MaskView& b) {
  const int64_t top = std::max(a.box.y1, b.box.y1), bottom = std::min(a.box.y2, b.box.y2);
  if (top >= bottom || std::max(a.box.x1, b.box.x1) >= std::min(a.box.x2, b.box.x2)) return 0;
  const int64_t first_a = a.box.x1 / 64, first_b = b.box.x1 / 64;
  const int64_t left = std::max(first_a, first_b), right = std::min(words_for(a.box.x2), words_for(b.box.x2));
  const uint64_t* from_a = a.words + (top - a.box.y1) * a.stride + left - first_a;
  const uint64_t* from_b = b.words + (top - b.box.y1) * b.stride + left - first_b;
  const MaskTable& table = mask_table();
  // Where rows have the same words in both masks, all rows are counted as one run of words. Reading the words between
  // the boxes costs less than skipping them.
  if (a.stride == b.stride && a.origin == b.origin && 2 * (right - left) >= a.stride) {
    const int64_t run = (bottom - top - 1) * a.stride + right - left;
    return table.and_count(from_a, run, from_b, run, 1, run);
  }
  return table.and_count(from_a, a.stride, from_b, b.stride, bottom - top, right - left);
}

uint8_t dense_matrix_counts(const uint8_t* a, int64_t n, const PackedView& b, int threads, int64_t* intersection,
                            int64_t* uni) {
  const int64_t pixels = b.height * b.width;
  ByteOr bytes;
  for_masks(n, pixels, threads, [&](int64_t begin, int64_t end) {
    std::vector<uint64_t> words(static_cast<size_t>(b.mask_words()));
    int64_t area = 0;
    PixelBox box;
    for (int64_t i = begin; i < end; ++i) {
      bytes.add(pack_mask(a + i * pixels, b.height, b.width, words.data(), &area, &box));
      const MaskView mask = PackedView{words.data(), &area, &box, 1, b.height, b.width}.view(0);
      for (int64_t j = 0; j < b.n; ++j) {
        const int64_t both = intersect(mask, b.view(j));
        intersection[i * b.n + j] = both;
        uni[i * b.n + j] = area + b.area[j] - both;
      }
    }
  });
  return bytes.get();
}

namespace {

// Copies of masks without the ignored pixels.
struct WithoutIgnored {
  std::vector<uint64_t> words;
  std::vector<int64_t> area;
  PackedView packed;

  WithoutIgnored(const PackedView& masks, const PackedView& ignore, int threads) {
    const int64_t n = masks.n, size = masks.mask_words();
    words.resize(static_cast<size_t>(n * size));
    area.resize(static_cast<size_t>(n));
    for_masks(n, 8 * size, threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const uint64_t* from = masks.words + i * size;
        const uint64_t* skip = ignore.words + (ignore.n == 1 ? 0 : i) * size;
        uint64_t* to = words.data() + i * size;
        for (int64_t k = 0; k < size; ++k) to[k] = from[k] & ~skip[k];
        area[static_cast<size_t>(i)] = mask_table().count(to, size);
      }
    });
    packed = {words.data(), area.data(), masks.box, n, masks.height, masks.width};
  }
};

}  // namespace

void packed_pair_counts(const PackedView& a, const PackedView& b, const PackedView* ignore, int threads,
                        int64_t* intersection, int64_t* uni) {
  for_masks(a.n, 8 * a.mask_words(), threads, [&](int64_t begin, int64_t end) {
    std::vector<uint64_t> kept;
    for (int64_t i = begin; i < end; ++i) {
      MaskView truth = b.view(i);
      int64_t areas = a.area[i] + b.area[i];
      if (ignore != nullptr) {
        const int64_t which = ignore->n == 1 ? 0 : i;
        const MaskView skip = ignore->view(which);
        areas -= intersect(a.view(i), skip) + intersect(truth, skip);
        const int64_t size = b.mask_words();
        const uint64_t *from = b.words + i * size, *holes = ignore->words + which * size;
        kept.resize(static_cast<size_t>(size));
        for (int64_t k = 0; k < size; ++k) kept[static_cast<size_t>(k)] = from[k] & ~holes[k];
        truth.words = kept.data() + (truth.words - from);
      }
      intersection[i] = intersect(a.view(i), truth);
      uni[i] = areas - intersection[i];
    }
  });
}

namespace {

// Finds the truths whose boxes overlap a mask's box. Prefetches the part of the mask that will be read for them, in
// steps while the mask before it is counted: the processor's own prefetcher starts anew with every box.
class BoxOverlaps {
 public:
  explicit BoxOverlaps(const PackedView& truth) : truth_(&truth), found_(static_cast<size_t>(truth.n)) {}

  void find(const PackedView& masks, int64_t i) {
    const PixelBox& box = masks.box[i];
    n_ = 0;
    for (int64_t j = 0; j < truth_->n; ++j) {
      found_[static_cast<size_t>(n_)] = j;
      n_ += boxes_overlap(box, truth_->box[j]);
    }
    PixelBox read{box.x2, box.y2, box.x1, box.y1};
    for (int64_t k = 0; k < n_; ++k) {
      const PixelBox& other = truth_->box[(*this)[k]];
      read.x1 = std::min(read.x1, other.x1), read.x2 = std::max(read.x2, other.x2);
      read.y1 = std::min(read.y1, other.y1), read.y2 = std::max(read.y2, other.y2);
    }
    stride_ = masks.stride();
    const int64_t left = std::max(read.x1, box.x1) / 64, top = std::max(read.y1, box.y1);
    width_ = words_for(std::min(read.x2, box.x2)) - left;
    at_ = masks.words + i * masks.mask_words() + top * stride_ + left;
    rows_ = n_ == 0 ? 0 : std::min(read.y2, box.y2) - top;
  }

  // Prefetches the next rows. `steps` calls, this one included, prefetch all rows that are left.
  void prefetch(int64_t steps) {
    for (int64_t rows = (rows_ + steps - 1) / steps; rows > 0; --rows, --rows_, at_ += stride_) {
      for (int64_t word = 0; word < width_; word += kLine) __builtin_prefetch(at_ + word);
      __builtin_prefetch(at_ + width_ - 1);
    }
  }

  int64_t size() const { return n_; }
  int64_t operator[](int64_t k) const { return found_[static_cast<size_t>(k)]; }

 private:
  static constexpr int64_t kLine = 8;  // words
  const PackedView* truth_;
  std::vector<int64_t> found_;
  int64_t n_ = 0, stride_ = 0, width_ = 0, rows_ = 0;
  const uint64_t* at_ = nullptr;
};

}  // namespace

void packed_matrix_counts(const PackedView& a, const PackedView& b, const PackedView* ignore, int threads,
                          int64_t* intersection, int64_t* uni) {
  if (ignore != nullptr && ignore->n == 1) {
    const WithoutIgnored kept_a(a, *ignore, threads), kept_b(b, *ignore, threads);
    return packed_matrix_counts(kept_a.packed, kept_b.packed, nullptr, threads, intersection, uni);
  }
  const auto fill = [&](const PackedView& truth) {
    // An estimate of the bytes that are read: a quarter of the boxes' bits, because most boxes overlap little or not.
    int64_t boxes = 0;
    for (int64_t i = 0; i < a.n; ++i) boxes += (a.box[i].y2 - a.box[i].y1) * (a.box[i].x2 - a.box[i].x1) / 32;
    for_masks(a.n, truth.n * boxes / std::max<int64_t>(a.n, 1), threads, [&](int64_t begin, int64_t end) {
      BoxOverlaps now(truth), next(truth);
      next.find(a, begin);
      for (int64_t i = begin; i < end; ++i) {
        std::swap(now, next);
        if (i + 1 < end) next.find(a, i + 1);
        const MaskView mask = a.view(i);
        int64_t *const both = intersection + i * truth.n, *const either = uni + i * truth.n;
        for (int64_t j = 0; j < truth.n; ++j) {
          const int64_t hidden = ignore == nullptr ? 0 : intersect(mask, ignore->view(j));
          both[j] = 0;
          either[j] = a.area[i] - hidden + truth.area[j];
        }
        for (int64_t k = 0; k < now.size(); ++k) {
          next.prefetch(now.size() - k);
          const int64_t j = now[k];
          both[j] = intersect(mask, truth.view(j));
          either[j] -= both[j];
        }
        next.prefetch(1);
      }
    });
  };
  if (ignore == nullptr) return fill(b);
  const WithoutIgnored kept(b, *ignore, threads);
  fill(kept.packed);
}

void iou_ratios(const int64_t* intersection, const int64_t* uni, int64_t n, double empty, double* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = iou_ratio(intersection[i], uni[i], empty);
}

}  // namespace dpad
