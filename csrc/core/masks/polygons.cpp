#include "core/masks/polygons.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "core/base/streaming.h"
#include "core/masks/loops.h"
#include "core/masks/polygon_marks.h"

namespace dpad {

namespace {

[[noreturn]] void reject(int64_t object, int64_t ring, const std::string& what) {
  throw std::invalid_argument("polygons[" + std::to_string(object) + "], ring " + std::to_string(ring) + what);
}

void check_starts(const char* name, const int64_t* starts, int64_t n, int64_t total) {
  bool good = starts[0] == 0 && starts[n] == total;
  for (int64_t i = 0; good && i < n; ++i) good = starts[i] <= starts[i + 1];
  if (!good)
    throw std::invalid_argument(std::string(name) + " must rise from 0 to " + std::to_string(total) +
                                ", the number of items it divides");
}

uint8_t* bytes_at(uint64_t* words) { return reinterpret_cast<uint8_t*>(words); }

bool beyond_caches(int64_t bytes) { return bytes > kBeyondCaches; }

// Writes the window's rows into a mask, and its area and box, so that the empty rows are not read again. `rows` is the
// mask's row at the window's top.
void draw(PolygonMarks& marks, uint64_t* rows, int64_t stride, std::vector<uint64_t>& columns, int64_t* area,
          PixelBox* box) {
  columns.assign(static_cast<size_t>(marks.words()), 0);
  Extent extent{columns.data()};
  mask_table().fold_draw(marks.plane(), {rows + marks.word(), stride, false, &extent});
  *area = extent.area;
  *box = box_of(extent, marks.words());
  if (*area == 0) return;
  box->x1 += marks.word() * 64, box->x2 += marks.word() * 64;
  box->y1 += marks.row(), box->y2 += marks.row();
}

}  // namespace

void check_polygons(const PolygonBatch& batch, int64_t vertices, int64_t rings) {
  check_starts("object_starts", batch.object_starts, batch.n, rings);
  check_starts("ring_starts", batch.ring_starts, rings, vertices);
  for (int64_t object = 0; object < batch.n; ++object) {
    const int64_t first = batch.object_starts[object];
    for (int64_t ring = first; ring < batch.object_starts[object + 1]; ++ring) {
      const int64_t begin = batch.ring_starts[ring], end = batch.ring_starts[ring + 1];
      if (end - begin < 3)
        reject(object, ring - first, " has " + std::to_string(end - begin) + " vertices, expected at least 3");
      for (int64_t i = 2 * begin; i < 2 * end; ++i)
        if (!(std::fabs(batch.vertices[i]) <= kMaxCoordinate))
          reject(object, ring - first,
                 ": vertex " + std::to_string(i / 2 - begin) + " has the coordinate " +
                     std::to_string(batch.vertices[i]) + ", expected -1e7 to 1e7");
    }
  }
}

void draw_polygons(const PolygonBatch& batch, int64_t height, int64_t width, PolygonRule rule, int threads, bool zeros,
                   uint64_t* words, int64_t* area, PixelBox* box) {
  const int64_t stride = words_for(width), size = height * stride;
  const bool bypass_caches = !zeros && beyond_caches(8 * batch.n * size);
  for_masks(batch.n, 8 * size, threads, [&](int64_t begin, int64_t end) {
    PolygonMarks marks(height, width, rule);
    std::vector<uint64_t> columns, window;
    const StreamingStores stream;
    for (int64_t i = begin; i < end; ++i) {
      uint64_t* out = words + i * size;
      area[i] = 0;
      box[i] = {};
      const bool any = marks.mark(batch, i);
      const int64_t top = any ? marks.row() * stride : 0, count = any ? marks.rows() * stride : 0;
      if (bypass_caches) {
        // The output will not stay in a cache until it is read. An ordinary store would first read every line from
        // memory.
        window.assign(static_cast<size_t>(count), 0);
        if (any) draw(marks, window.data(), stride, columns, area + i, box + i);
        stream.store(bytes_at(out), nullptr, 8 * top);
        stream.store(bytes_at(out + top), bytes_at(window.data()), 8 * count);
        stream.store(bytes_at(out + top + count), nullptr, 8 * (size - top - count));
        continue;
      }
      if (!zeros) std::fill_n(out, size, uint64_t{0});
      if (any) draw(marks, out + top, stride, columns, area + i, box + i);
    }
  });
}

void draw_polygons_dense(const PolygonBatch& batch, int64_t height, int64_t width, PolygonRule rule, int threads,
                         bool zeros, uint8_t* dense) {
  const MaskTable& table = mask_table();
  const bool bypass_caches = !zeros && beyond_caches(batch.n * height * width);
  for_masks(batch.n, height * width, threads, [&](int64_t begin, int64_t end) {
    PolygonMarks marks(height, width, rule);
    std::vector<uint64_t> bits;
    const StreamingStores stream;
    for (int64_t i = begin; i < end; ++i) {
      uint8_t* const mask = dense + i * height * width;
      const bool any = marks.mark(batch, i);
      const int64_t top = any ? marks.row() : 0, bottom = any ? top + marks.rows() : 0;
      if (bypass_caches) {
        stream.store(mask, nullptr, top * width);
        stream.store(mask + bottom * width, nullptr, (height - bottom) * width);
      }
      if (!zeros)
        copy_or_clear(mask + (bypass_caches ? top * width : 0), nullptr,
                      (bypass_caches ? bottom - top : height) * width);
      if (!any) continue;
      const int64_t words = marks.words(), x = marks.word() * 64;
      bits.resize(static_cast<size_t>(marks.rows() * words));
      table.fold_draw(marks.plane(), {bits.data(), words, false});
      uint8_t* out = mask + top * width + x;
      for (int64_t y = 0; y < marks.rows(); ++y)
        table.unpack_row(bits.data() + y * words, std::min(words * 64, width - x), out + y * width);
    }
  });
}

std::vector<Rle> polygons_to_rle(const PolygonBatch& batch, int64_t height, int64_t width, PolygonRule rule,
                                 int threads) {
  const int64_t stride = words_for(width);
  std::vector<Rle> rles(static_cast<size_t>(batch.n));
  for_masks(batch.n, 8 * height * stride, threads, [&](int64_t begin, int64_t end) {
    PolygonMarks marks(height, width, rule);
    std::vector<uint64_t> words(static_cast<size_t>(height * stride), 0), columns;
    for (int64_t i = begin; i < end; ++i) {
      int64_t area = 0;
      PixelBox box;
      const bool any = marks.mark(batch, i);
      if (any) draw(marks, words.data() + marks.row() * stride, stride, columns, &area, &box);
      rles[static_cast<size_t>(i)] = rle_from_words(words.data(), height, width, box);
      if (any) std::fill_n(words.data() + marks.row() * stride, marks.rows() * stride, uint64_t{0});
    }
  });
  return rles;
}

void polygon_counts(const PolygonBatch& batch, PolygonRule rule, const PackedView& masks, const int64_t* index,
                    const PackedView* ignore, int threads, int64_t* intersection, int64_t* uni) {
  const int64_t stride = masks.stride(), size = masks.mask_words();
  for_masks(batch.n, 8 * size, threads, [&](int64_t begin, int64_t end) {
    PolygonMarks marks(masks.height, masks.width, rule);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t which = index == nullptr ? i : index[i];
      const int64_t skip = ignore == nullptr || ignore->n == 1 ? 0 : which;
      const int64_t hidden = ignore == nullptr ? 0 : intersect(masks.view(which), ignore->view(skip));
      FoldCount counts{};
      if (marks.mark(batch, i)) {
        const int64_t at = marks.row() * stride + marks.word();
        counts.truth = masks.words + which * size + at;
        counts.ignore = ignore == nullptr ? nullptr : ignore->words + skip * size + at;
        counts.stride = stride;
        mask_table().fold_count(marks.plane(), counts);
      }
      intersection[i] = counts.intersection;
      uni[i] = counts.area + masks.area[which] - hidden - intersection[i];
    }
  });
}

}  // namespace dpad
