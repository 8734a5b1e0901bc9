#include "core/crops/resample.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <new>

#include "core/base/parallel.h"
#include "core/crops/geometry.h"

namespace dpad {

namespace {

// A buffer aligned for vectors. It grows and never shrinks. New bytes are 0, so that padding is never garbage.
class Buffer {
 public:
  uint8_t* get(int64_t bytes) {
    if (bytes > size_) {
      bytes_.reset(static_cast<uint8_t*>(::operator new(static_cast<size_t>(bytes), std::align_val_t(64))));
      std::memset(bytes_.get(), 0, static_cast<size_t>(bytes));
      size_ = bytes;
    }
    return bytes_.get();
  }

 private:
  struct Free {
    void operator()(uint8_t* bytes) const { ::operator delete(bytes, std::align_val_t(64)); }
  };
  std::unique_ptr<uint8_t, Free> bytes_;
  int64_t size_ = 0;
};

// The buffers of one thread; reused from crop to crop.
struct Workspace {
  Buffer ring;     // rows after the horizontal pass
  Buffer scratch;  // of the horizontal pass
  Buffer line;     // one row before normalisation
  Buffer columns;  // rows after the vertical pass, where that is the first
  std::vector<const uint8_t*> rows;
  std::vector<double> raw;
  // The weights of the last crops' sides, which images and boxes of one size share. Columns and rows are kept apart, so
  // that new weights of one never drop those of the other.
  struct Recent {
    std::array<AxisWeights, 4> axes;
    size_t next = 0;
  };
  Recent columns_of;
  Recent rows_of;

  const AxisWeights& weights(const AxisKey& key) {
    Recent& recent = key.from_begin ? columns_of : rows_of;
    for (const AxisWeights& axis : recent.axes)
      if (axis.pairs != 0 && axis.key == key) return axis;
    AxisWeights& axis = recent.axes[recent.next++ % recent.axes.size()];
    compute_weights(key, raw, axis);
    return axis;
  }
};

int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

// The output [3, size, size] of one crop: takes rows of bytes, normalises and stores them.
class CropOutput {
 public:
  CropOutput(const PreprocessOptions& options, const CropTable& table, const Normalisation* scales, void* out,
             int64_t index)
      : size_(options.size), type_(options.type), table_(table), scales_(scales) {
    const int64_t element = type_ == PixelType::float32 ? 4 : 2;
    out_ = static_cast<uint8_t*>(out) + index * kChannels * size_ * size_ * element;
  }

  // Row y: `count` bytes of each channel from column `left` on, and black elsewhere.
  void write(int64_t y, int64_t left, int64_t count, const uint8_t* const* channels) const {
    for (int c = 0; c < kChannels; ++c) {
      black(c, y, 0, left);
      store(c, y, left, count, channels[c]);
      black(c, y, left + count, size_);
    }
  }

  void black_rows(int64_t begin, int64_t end) const {
    for (int c = 0; c < kChannels; ++c)
      for (int64_t y = begin; y < end; ++y) black(c, y, 0, size_);
  }

 private:
  void black(int channel, int64_t y, int64_t begin, int64_t end) const {
    static constexpr uint8_t kZeros[256] = {};
    for (; begin < end; begin += sizeof(kZeros))
      store(channel, y, begin, std::min<int64_t>(end - begin, sizeof(kZeros)), kZeros);
  }

  void store(int channel, int64_t y, int64_t x, int64_t count, const uint8_t* bytes) const {
    const int64_t at = (channel * size_ + y) * size_ + x;
    const Normalisation& scale = scales_[channel];
    if (type_ == PixelType::float32)
      table_.to_float32(bytes, count, scale, reinterpret_cast<float*>(out_) + at);
    else if (type_ == PixelType::bfloat16)
      table_.to_bfloat16(bytes, count, scale, reinterpret_cast<uint16_t*>(out_) + at);
    else
      table_.to_float16(bytes, count, scale, reinterpret_cast<uint16_t*>(out_) + at);
  }

  int64_t size_;
  PixelType type_;
  const CropTable& table_;
  const Normalisation* scales_;
  uint8_t* out_;
};

// One crop of one image, with the weights of both of its sides.
struct Crop {
  const ImageView& image;
  const Region& region;
  const Geometry& geometry;
  const AxisWeights& across;
  const AxisWeights& down;
  const CropTable& table;

  int64_t pixel_step() const { return image.layout == Layout::rgb ? 3 : (image.layout == Layout::rgbx ? 4 : 1); }

  // Row y of the crop, from the first column that has a weight.
  const uint8_t* row(int64_t y) const {
    return image.data + (region.y1 + y) * image.row_stride + (region.x1 + across.begin) * pixel_step();
  }
  int64_t columns() const { return across.end - across.begin; }
};

// The source rows that have a weight in output row i, two pointers for each pair of weights. Past the last source row
// that row is repeated.
template <typename RowAt>
void gather_rows(const Windows& windows, int64_t i, int64_t end, std::vector<const uint8_t*>& rows, RowAt row_at) {
  rows.resize(static_cast<size_t>(2 * windows.pairs));
  for (int64_t tap = 0; tap < 2 * windows.pairs; ++tap) rows[tap] = row_at(std::min(windows.first[i] + tap, end - 1));
}

// Writes the kept output rows [begin, end), horizontal pass first. A ring buffer holds the rows that the next output
// row needs.
void horizontal_first(const Crop& crop, int64_t begin, int64_t end, const CropOutput& output, Workspace& work) {
  const Windows columns = crop.across.windows(0);
  const Windows rows = crop.down.windows(0);
  const int64_t stride = round_up(columns.count, 16);
  const int64_t slots = 2 * rows.pairs + kStripRows;
  uint8_t* ring = work.ring.get(slots * kChannels * stride);
  uint8_t* line = work.line.get(kChannels * stride);
  uint8_t* scratch = work.scratch.get(across_scratch(columns.pairs) + stride);
  uint8_t* unwanted = scratch + across_scratch(columns.pairs);
  const int64_t last = std::min(rows.first[end - 1] + 2 * rows.pairs, crop.down.end);
  int64_t filled = rows.first[begin];
  for (int64_t i = begin; i < end; ++i) {
    while (filled < std::min(rows.first[i] + 2 * rows.pairs, last)) {
      const int64_t count = std::min<int64_t>(kStripRows, last - filled);
      Strip strip{crop.image.layout, {}, crop.image.plane_stride, crop.columns()};
      uint8_t* out[kChannels * kStripRows];
      for (int64_t r = 0; r < kStripRows; ++r) {
        strip.rows[r] = crop.row(filled + std::min(r, count - 1));
        for (int c = 0; c < kChannels; ++c)
          out[c * kStripRows + r] = r < count ? ring + ((filled + r) % slots * kChannels + c) * stride : unwanted;
      }
      crop.table.across(strip, columns, out, scratch);
      filled += count;
    }
    gather_rows(rows, i, last, work.rows, [&](int64_t y) { return ring + y % slots * kChannels * stride; });
    crop.table.down(work.rows.data(), rows.weights + i * rows.pairs, rows.pairs, kChannels * stride, line);
    const uint8_t* channels[kChannels] = {line, line + stride, line + 2 * stride};
    output.write(crop.geometry.height.pad + i, crop.geometry.width.pad, columns.count, channels);
  }
}

// The vertical pass of one output row over the columns that the horizontal pass needs, in the layout of the source.
void down_source(const Crop& crop, int64_t i, int64_t plane_bytes, uint8_t* out, Workspace& work) {
  const Windows rows = crop.down.windows(0);
  const int64_t step = crop.pixel_step();
  const bool planar = crop.image.layout == Layout::planar;
  // The last pixel's fourth byte may lie outside of the picture's memory.
  const int64_t bytes = crop.columns() * step - (crop.image.layout == Layout::rgbx ? 1 : 0);
  for (int c = 0; c < (planar ? kChannels : 1); ++c) {
    const int64_t offset = c * crop.image.plane_stride;
    gather_rows(rows, i, crop.down.end, work.rows, [&](int64_t y) { return crop.row(y) + offset; });
    crop.table.down(work.rows.data(), rows.weights + i * rows.pairs, rows.pairs, bytes, out + c * plane_bytes);
  }
}

// Writes the kept output rows [begin, end), vertical pass first, 16 rows at a time.
void vertical_first(const Crop& crop, int64_t begin, int64_t end, const CropOutput& output, Workspace& work) {
  const Windows columns = crop.across.windows(0);
  const int64_t plane_bytes = round_up(crop.columns() * crop.pixel_step(), 64);
  const bool planar = crop.image.layout == Layout::planar;
  const int64_t row_bytes = plane_bytes * (planar ? kChannels : 1);
  const int64_t stride = round_up(columns.count, 16);
  uint8_t* source = work.columns.get(kStripRows * row_bytes);
  uint8_t* lines = work.ring.get(kStripRows * kChannels * stride);
  uint8_t* scratch = work.scratch.get(across_scratch(columns.pairs));
  for (int64_t i = begin; i < end; i += kStripRows) {
    const int64_t count = std::min<int64_t>(kStripRows, end - i);
    Strip strip{crop.image.layout, {}, plane_bytes, crop.columns()};
    uint8_t* out[kChannels * kStripRows];
    for (int64_t r = 0; r < kStripRows; ++r) {
      if (r < count) down_source(crop, i + r, plane_bytes, source + r * row_bytes, work);
      strip.rows[r] = source + r * row_bytes;
      for (int c = 0; c < kChannels; ++c) out[c * kStripRows + r] = lines + (c * kStripRows + r) * stride;
    }
    crop.table.across(strip, columns, out, scratch);
    for (int64_t r = 0; r < count; ++r) {
      const uint8_t* channels[kChannels] = {out[r], out[kStripRows + r], out[2 * kStripRows + r]};
      output.write(crop.geometry.height.pad + i + r, crop.geometry.width.pad, columns.count, channels);
    }
  }
}

AxisKey key_of(const Side& side, const Range& valid, Filter filter, bool from_begin) {
  return {side.source, side.resized, side.first, side.kept, valid.begin, valid.end, filter, from_begin};
}

// Writes one of `bands` bands of rows of one region's output.
void one_band(const ImageView& image, const Region& region, const PreprocessOptions& options, const CropTable& table,
              const CropOutput& output, int64_t band, int64_t bands, Workspace& work) {
  const int64_t top = options.size * band / bands, bottom = options.size * (band + 1) / bands;
  const Range x = inside(region.x1, region.x2, image.width);
  const Range y = inside(region.y1, region.y2, image.height);
  const Geometry geometry = plan_geometry(region.x2 - region.x1, region.y2 - region.y1, options);
  const Side& height = geometry.height;
  const int64_t first = std::min(std::max(top, height.pad), bottom);
  const int64_t last = std::max(std::min(bottom, height.pad + height.kept), first);
  if (x.begin >= x.end || y.begin >= y.end || first == last) return output.black_rows(top, bottom);
  output.black_rows(top, first);
  output.black_rows(last, bottom);
  const AxisWeights& across = work.weights(key_of(geometry.width, x, options.filter, true));
  const AxisWeights& down = work.weights(key_of(height, y, options.filter, false));
  const Crop crop{image, region, geometry, across, down, table};
  const auto passes = geometry.vertical_first ? vertical_first : horizontal_first;
  passes(crop, first - height.pad, last - height.pad, output, work);
}

}  // namespace

void roi_clip_preprocess(const std::vector<ImageView>& images, const std::vector<Region>& regions,
                         const PreprocessOptions& options, int threads, void* out) {
  const CropTable& table = crop_table(options.level);
  Normalisation scales[kChannels];
  for (int c = 0; c < kChannels; ++c) scales[c] = make_normalisation(options.mean[c], options.std[c]);
  const int64_t count = static_cast<int64_t>(regions.size());
  if (count == 0) return;
  // Few regions are cut into bands of rows, so that all threads have work. Source rows that two bands need are computed
  // twice.
  const int64_t max_bands = std::max<int64_t>(options.size / 32, 1);
  const int64_t wanted = 2 * int64_t{threads};
  const int64_t bands = count >= wanted ? 1 : std::min((wanted + count - 1) / count, max_bands);
  const int slots = parallel_slots(count * bands, threads);
  std::vector<Workspace> work(static_cast<size_t>(slots));
  parallel_for(count * bands, slots, [&](int64_t item, int slot) {
    const int64_t index = item / bands;
    const Region& region = regions[index];
    const CropOutput output(options, table, scales, out, index);
    one_band(images[region.image], region, options, table, output, item % bands, bands, work[slot]);
  });
}

}  // namespace dpad
