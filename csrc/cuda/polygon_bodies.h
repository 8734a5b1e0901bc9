// Bodies of the polygon kernels. A block draws a band of rows of one object in shared memory. Then it writes the band
// as words or as bytes, or counts it against a mask. Global memory is written once and not read back.
#pragma once

#include "cuda/mask_bodies.h"
#include "cuda/polygon_edges.h"

namespace dpad::gpu {

enum class Rule { coco, opencv, center };

// vertices [vertex_count, 2]; ring r is vertices ring_starts[r]..ring_starts[r + 1], object i is rings
// object_starts[i]..object_starts[i + 1]. Starts that do not fit are cut to what there is: memory stays safe.
struct Polygons {
  const double* vertices;
  const int64_t *ring_starts, *object_starts;
  int64_t vertex_count, ring_count, n;
};

constexpr int kBandWords = 2048;  // words of 32 bits in each of a band's two planes: 16 KiB a block
constexpr int kBandRows = 64;     // taller bands would leave multiprocessors idle on small batches
constexpr int kDrawThreads = 128;
constexpr int kTurnsOfEdges = 4;
constexpr double kFarthest = 1e7;
constexpr int kReach = 2;  // no rule marks a row that is farther from an edge

// Rows of a band: as many as fit, then evened out over the bands.
DPAD_HD int64_t band_rows(int64_t height, int64_t width) {
  const int64_t fit = clamped<int64_t>(kBandWords / maximum<int64_t>(2 * words_in(width), 1), 1, kBandRows);
  const int64_t bands = maximum<int64_t>(ceil_div(height, fit), 1);
  return maximum<int64_t>(ceil_div(height, bands), 1);
}
DPAD_HD int64_t band_count(int64_t height, int64_t width) { return ceil_div(height, band_rows(height, width)); }

struct BandShared {
  WordPair toggles[kBandWords / 4], sets[kBandWords / 4];
  int bad;
  int32_t top, bottom;  // rows that the object may touch
};

// Draws a band of rows of one object. Its bits end in shared.sets; those past the width are 0. Most bands touch no
// object, or a few of its edges: what costs float64 or divisions is done for those alone.
template <Rule kRule>
struct BandDrawer {
  static constexpr int kThreads = kDrawThreads;
  const Polygons& polygons;
  int32_t height;
  Band band;
  int64_t first_ring, last_ring;

  DPAD_HD BandDrawer(const Polygons& all, int64_t h, int64_t w, int64_t object, int64_t which, BandShared& shared)
      : polygons(all), height(static_cast<int32_t>(h)) {
    const int32_t rows = static_cast<int32_t>(band_rows(h, w));
    band.toggles = reinterpret_cast<uint32_t*>(shared.toggles);
    band.sets = reinterpret_cast<uint32_t*>(shared.sets);
    band.pitch = static_cast<int32_t>(2 * words_in(w)), band.width = static_cast<int32_t>(w);
    band.top = static_cast<int32_t>(which) * rows, band.bottom = minimum(band.top + rows, height);
    first_ring = clamped<int64_t>(all.object_starts[object], 0, all.ring_count);
    last_ring = clamped<int64_t>(all.object_starts[object + 1], first_ring, all.ring_count);
  }

  DPAD_HD int rows() const { return band.bottom - band.top; }
  DPAD_HD int words() const { return rows() * (band.pitch / 2); }

  // False where nothing is drawn.
  template <typename Block>
  DPAD_HD bool draw(Block& block, BandShared& shared) const {
    block.each([&](int thread) {
      const int pairs = (words() + 1) / 2;
      for (int i = thread; i < pairs; i += kThreads) shared.toggles[i] = shared.sets[i] = WordPair{0, 0};
      if (thread == 0) shared.bad = 0, shared.top = INT32_MAX, shared.bottom = INT32_MIN;
    });
    block.each([&](int thread) { look(thread, shared); });
    const bool blank = words() == 0 || shared.bad != 0 || shared.top >= band.bottom || shared.bottom <= band.top;
    if (blank) return false;
    if constexpr (kRule != Rule::coco) {
      block.each([&](int thread) {
        for (int64_t ring = first_ring; ring < last_ring; ++ring) mark(ring, thread);
      });
      block.each([&](int thread) {
        const int parts = clamped(kThreads / rows(), 1, band.pitch);
        for (int i = thread; i < rows() * parts; i += kThreads) fold_right(i % rows(), i / rows(), parts);
      });
    } else {
      for (int64_t ring = first_ring; ring < last_ring; ++ring) {
        block.each([&](int thread) { mark(ring, thread); });
        block.each([&](int thread) {
          const int parts = clamped(kThreads / band.pitch, 1, rows());
          for (int i = thread; i < band.pitch * parts; i += kThreads) fold_down(i % band.pitch, i / band.pitch, parts);
        });
      }
    }
    return true;
  }

  DPAD_HD int64_t vertex_start(int64_t ring) const {
    return clamped<int64_t>(polygons.ring_starts[ring], 0, polygons.vertex_count);
  }

  // Finds bad vertices and the rows that the others may touch. Ring by ring as `mark` goes, so that no vertex is marked
  // unchecked, whatever the starts are.
  DPAD_HD void look(int thread, BandShared& shared) const {
    bool bad = false;
    double low = kFarthest, high = -kFarthest;
    for (int64_t ring = first_ring; ring < last_ring; ++ring) {
      const int64_t end = vertex_start(ring + 1);
      for (int64_t i = vertex_start(ring) + thread; i < end; i += kThreads) {
        const Vertex v = vertex(i);
        bad |= !(fabs(v.x) <= kFarthest && fabs(v.y) <= kFarthest);
        low = minimum(low, v.y), high = maximum(high, v.y);
      }
    }
    if (bad) shared.bad = 1;
    if (bad || low > high) return;
    atomic_least(&shared.top, static_cast<int32_t>(low) - kReach);
    atomic_most(&shared.bottom, static_cast<int32_t>(high) + kReach + 1);
  }

  DPAD_HD Vertex vertex(int64_t i) const { return {polygons.vertices[2 * i], polygons.vertices[2 * i + 1]}; }

  // In a short ring an edge has many crossings, and many lanes share them; in a long ring each lane has its own edge.
  DPAD_HD void mark(int64_t ring, int thread) const {
    const int64_t begin = vertex_start(ring), end = maximum(vertex_start(ring + 1), begin);
    if (end - begin < 3) return;
    int shared_by = 32;
    while (shared_by > 1 && shared_by * (end - begin) > kTurnsOfEdges * kThreads) shared_by /= 2;
    const Lanes lanes{thread % shared_by, shared_by};
    for (int64_t i = begin + thread / shared_by; i < end; i += kThreads / shared_by) {
      const Vertex from = vertex(i), to = vertex(i + 1 < end ? i + 1 : begin);
      if (minimum(from.y, to.y) - kReach >= band.bottom) continue;
      // An edge of coco's above the band toggles whole columns of it.
      if (kRule != Rule::coco && maximum(from.y, to.y) + kReach < band.top) continue;
      if constexpr (kRule == Rule::coco) mark_coco_edge(band, from, to, lanes);
      if constexpr (kRule == Rule::opencv) mark_opencv_edge(band, height, from, to, lanes);
      if constexpr (kRule == Rule::center) mark_center_edge(band, from, to, lanes);
    }
  }

  // Part `part` of `parts` of a row. What was toggled left of it counts by its parity.
  DPAD_HD void fold_right(int row, int part, int parts) const {
    const uint32_t* toggles = band.toggles + row * band.pitch;
    const int begin = band.pitch * part / parts, end = band.pitch * (part + 1) / parts;
    uint32_t before = 0;
    for (int i = 0; i < begin; ++i) before ^= toggles[i];
    uint32_t carry = 0u - static_cast<uint32_t>(popcount(before) & 1);
    for (int i = begin; i < end; ++i) {
      uint32_t word = toggles[i];
      for (int shift = 1; shift < 32; shift *= 2) word ^= word << shift;
      word ^= carry;
      carry = 0u - (word >> 31);
      const int left = band.width - 32 * i;
      const uint32_t inside = left >= 32 ? ~0u : left > 0 ? (1u << left) - 1 : 0u;
      band.sets[row * band.pitch + i] = (word | band.sets[row * band.pitch + i]) & inside;
    }
  }

  // Part `part` of `parts` of a column of words. Toggles are left as they are for the next ring: with a ring already
  // drawn, drawing it exclusive-or the next one adds exactly the next one.
  DPAD_HD void fold_down(int column, int part, int parts) const {
    const int begin = rows() * part / parts, end = rows() * (part + 1) / parts;
    uint32_t word = 0;
    for (int row = 0; row < begin; ++row) word ^= band.toggles[row * band.pitch + column];
    for (int row = begin; row < end; ++row) {
      word ^= band.toggles[row * band.pitch + column];
      band.sets[row * band.pitch + column] |= word;
    }
  }
};

// The arguments of every polygon kernel; an object beyond 1e7 or with NaN is drawn as empty.
struct DrawArgs {
  Polygons polygons;
  int64_t height, width;

  DPAD_HD int64_t blocks() const { return polygons.n * band_count(height, width); }
};

// --- to words, with each band's area and box ---

struct DrawWordsArgs : DrawArgs {
  uint64_t* words;  // [n, height, words]
  Extent* extents;  // [n, bands]
};

template <Rule kRule>
struct DrawWordsBody {
  using Args = DrawWordsArgs;
  static constexpr int kThreads = kDrawThreads, kBlocks = 4;
  struct Shared {
    BandShared band;
    Extent extents[kThreads];
  };

  DPAD_HD static int64_t blocks(const Args& a) { return a.blocks(); }

  template <typename Block>
  DPAD_HD static void run(Block& block, Shared& shared, const Args& a, int64_t index) {
    const int64_t bands = band_count(a.height, a.width), object = index / bands;
    const BandDrawer<kRule> drawer(a.polygons, a.height, a.width, object, index - object * bands, shared.band);
    drawer.draw(block, shared.band);
    const int row = drawer.band.pitch / 2, words = drawer.words(), top = drawer.band.top;
    uint64_t* into = a.words + (object * a.height + top) * row;
    typename Block::template Local<Extent> own;
    block.each([&](int thread) {
      for (int i = thread; 2 * i < words; i += kThreads) {
        const WordPair pair = shared.band.sets[i];
        store_pair(into, i, words, is_aligned(into), pair);
        const int y = 2 * i / row, x = 2 * i % row;
        const bool next = x + 1 == row;
        own[thread].add(pair.low, x * 64, top + y);
        if (2 * i + 1 < words) own[thread].add(pair.high, next ? 0 : x * 64 + 64, top + y + next);
      }
    });
    reduce<kThreads>(block, own, shared.extents, [](Extent& sum, const Extent& from) { sum.join(from); });
    block.each([&](int thread) {
      if (thread == 0) a.extents[index] = shared.extents[0];
    });
  }
};

// Joins the bands of each object.
struct JoinArgs {
  const Extent* extents;
  int64_t *area, *box;
  int64_t n, bands;
};

struct JoinBody : ItemBody<JoinBody, JoinArgs, 128> {
  DPAD_HD static int64_t items(const Args& a) { return a.n; }
  DPAD_HD static void one(const Args& a, int64_t object) {
    Extent all;
    for (int64_t i = 0; i < a.bands; ++i) all.join(a.extents[object * a.bands + i]);
    all.store(a.area + object, a.box + 4 * object);
  }
};

// --- to bytes ---

struct DrawDenseArgs : DrawArgs {
  uint8_t* dense;  // [n, height, width]
};

template <Rule kRule>
struct DrawDenseBody {
  using Args = DrawDenseArgs;
  static constexpr int kThreads = kDrawThreads, kBlocks = 4;
  using Shared = BandShared;

  DPAD_HD static int64_t blocks(const Args& a) { return a.blocks(); }

  template <typename Block>
  DPAD_HD static void run(Block& block, Shared& shared, const Args& a, int64_t index) {
    const int64_t bands = band_count(a.height, a.width), object = index / bands;
    const BandDrawer<kRule> drawer(a.polygons, a.height, a.width, object, index - object * bands, shared);
    const bool drawn = drawer.draw(block, shared);
    const int64_t start = (object * a.height + drawer.band.top) * a.width;
    // All pieces are 16 aligned bytes, except for the first and the last.
    const int bytes = drawer.rows() * drawer.band.width, before = static_cast<int>(start & 15);
    block.each([&](int thread) {
      for (int i = 16 * thread - before; i < bytes; i += 16 * kThreads) {
        const int first = maximum(i, 0), end = minimum(i + 16, bytes), row = first / drawer.band.width;
        uint32_t bits = 0;
        if (drawn)
          bits = gather_bits(drawer.band.sets, drawer.band.pitch, drawer.band.width, row,
                             first - row * drawer.band.width, end - first);
        store_bytes(a.dense, start + first, start + end, bits);
      }
    });
  }
};

// --- to counts against masks ---

struct DrawCountsArgs : DrawArgs {
  const uint64_t* masks;   // [mask_count, height, words]
  const int64_t* index;    // [n] or null: object i against mask i
  const uint64_t* ignore;  // null, or ignore_step words from mask to mask (0: one for all)
  int64_t mask_count, ignore_step;
  int64_t *intersection, *uni;  // [n], start as 0; stay 0 where index[i] is no mask
};

template <Rule kRule>
struct DrawCountsBody {
  using Args = DrawCountsArgs;
  static constexpr int kThreads = kDrawThreads, kBlocks = 4;
  struct Shared {
    BandShared band;
    CountsShared<kThreads> counts;
  };

  DPAD_HD static int64_t blocks(const Args& a) { return a.blocks(); }

  template <typename Block>
  DPAD_HD static void run(Block& block, Shared& shared, const Args& a, int64_t index) {
    const int64_t bands = band_count(a.height, a.width), object = index / bands;
    const int64_t which = a.index == nullptr ? object : a.index[object];
    if (which < 0 || which >= a.mask_count) return;
    const BandDrawer<kRule> drawer(a.polygons, a.height, a.width, object, index - object * bands, shared.band);
    drawer.draw(block, shared.band);
    const int64_t row = drawer.band.pitch / 2, words = drawer.words(), at = drawer.band.top * row;
    const uint64_t* truth = a.masks + which * a.height * row + at;
    const uint64_t* ignore = a.ignore == nullptr ? nullptr : a.ignore + which * a.ignore_step + at;
    const bool aligned = is_aligned(truth), aligned_ignore = is_aligned(ignore);
    typename Block::template Local<PairCounts> own;
    block.each([&](int thread) {
      for (int64_t i = thread; 2 * i < words; i += kThreads) {
        const WordPair drawn = load_pair(reinterpret_cast<const uint64_t*>(shared.band.sets), i, words, false);
        const WordPair mask = load_pair(truth, i, words, aligned);
        const WordPair hidden = ignore == nullptr ? WordPair{0, 0} : load_pair(ignore, i, words, aligned_ignore);
        own[thread].add(drawn.low, mask.low, hidden.low);
        own[thread].add(drawn.high, mask.high, hidden.high);
      }
    });
    add_counts(block, own, shared.counts, object, a.intersection, a.uni);
  }
};

}  // namespace dpad::gpu
