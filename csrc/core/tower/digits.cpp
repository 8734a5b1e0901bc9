#include "core/tower/digits.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/base/parallel.h"
#include "core/base/scratch.h"
#include "core/tower/row_groups.h"
#include "simd/digits/table.h"
#include "simd/tower/table.h"

namespace dpad {
namespace {

// The depth of a layer, cut into blocks of equally many steps. In every row, the elements of a block share a scale.
struct Depth {
  explicit Depth(int64_t depth)
      : depth(depth), blocks(ceil_div(depth, kDigitDepth)), steps(ceil_div(ceil_div(depth, blocks), kDigitStep)) {}
  int64_t width() const { return steps * kDigitStep; }
  int64_t start(int64_t block) const { return std::min(depth, block * width()); }
  int64_t size(int64_t block) const { return start(block + 1) - start(block); }

  int64_t depth, blocks, steps;
};

constexpr int64_t kGroupRows = 256;  // rows that share a panel of weights from the second-level cache

// Groups are whole pairs of blocks, because two digits multiply two blocks at once.
RowGroups groups_of(int64_t rows, int threads) { return {rows, 2 * kDigitRows, kGroupRows, threads}; }

// A group of rows in digits.
class DigitRows {
 public:
  DigitRows(int64_t rows, const Depth& depth, int digits)
      : depth_(depth),
        digits_(digits),
        stride_(depth.blocks * depth.steps * step()),
        data_(ceil_div(rows, kDigitRows) * stride_),
        scale_(rows * depth.blocks),
        capacity_(rows) {}

  // Sets the `count` elements of row r in one block of the depth.
  void set(int64_t r, int64_t block, const float* x, int64_t count) {
    int8_t* out = data_.get() + r / kDigitRows * stride_ + block * depth_.steps * step() + r % kDigitRows * kDigitStep;
    scale_.get()[block * capacity_ + r] = digit_table().to_digits(x, count, digits_, out, kTileBytes, step());
  }
  const int8_t* block(int64_t block) const { return data_.get() + block * depth_.steps * step(); }
  int64_t stride() const { return stride_; }
  const float* scale(int64_t block) const { return scale_.get() + block * capacity_; }

 private:
  int64_t step() const { return digits_ * kTileBytes; }

  Depth depth_;
  int digits_;
  int64_t stride_;
  Scratch<int8_t> data_;
  Scratch<float> scale_;
  int64_t capacity_;
};

int used_digits(const Linear& layer) { return layer.products == Products::digits2 ? 2 : 3; }

// Turns rows x into digits, after the norm if there is one.
void fill(const float* x, int64_t rows, const Depth& depth, const Norm& norm, float* normed, DigitRows& out) {
  for (int64_t r = 0; r < rows; ++r, x += depth.depth) {
    const float* row = x;
    if (norm.weight != nullptr) {
      tower_table().layer_norm(row, norm.weight, norm.bias, depth.depth, norm.eps, normed);
      row = normed;
    }
    for (int64_t b = 0; b < depth.blocks; ++b) out.set(r, b, row + depth.start(b), depth.size(b));
  }
}

// Where a product's sums are stored, and the steps that follow them.
struct Epilogue {
  bool add, quick_gelu;
  float* out;
  int64_t stride;
};

// Multiplies some rows with columns [from, to) of a layer, over the blocks [first, last) of its depth. `a` has only
// these blocks, and column 0 of out is `from`.
void multiply(const DigitRows& a, int64_t rows, const Linear& layer, int64_t from, int64_t to, int64_t first,
              int64_t last, const Epilogue& epilogue) {
  const Depth depth(layer.depth);
  const int64_t panel_step = layer.stored_digits * kTileBytes, panel_block = depth.steps * panel_step;
  const auto* packed = static_cast<const int8_t*>(layer.packed);
  const auto panel = [&](int64_t column, int64_t block) {
    return packed + (column / kDigitColumns * depth.blocks + block) * panel_block;
  };
  for (int64_t column = from; column < to; column += kDigitColumns)
    for (int64_t b = first; b < last; ++b) {
      DigitProduct product;
      product.a = a.block(b - first);
      product.a_stride = a.stride();
      product.panel = panel(column, b);
      product.panel_step = panel_step;
      product.steps = depth.steps;
      product.rows = rows;
      product.columns = std::min(kDigitColumns, to - column);
      product.row_scale = a.scale(b - first);
      product.column_scale = layer.scale + column;
      product.bias = layer.bias == nullptr || b > 0 ? nullptr : layer.bias + column;
      product.add = epilogue.add || b > first;
      product.quick_gelu = epilogue.quick_gelu && b + 1 == last;
      product.out = epilogue.out + (column - from);
      product.out_stride = epilogue.stride;
      const bool more = column + kDigitColumns < to;
      product.next_panel = b + 1 < last ? panel(column, b + 1) : more ? panel(column + kDigitColumns, first) : nullptr;
      digit_table().multiply(product, used_digits(layer));
    }
}

struct LinearWorkspace {
  DigitRows a;
  Scratch<float> normed;
};

}  // namespace

int64_t digit_bytes(int64_t columns, int64_t depth, int digits) {
  const Depth layer(depth);
  return ceil_div(columns, kDigitColumns) * layer.blocks * layer.steps * digits * kTileBytes;
}

void pack_digits(const float* weight, int64_t columns, int64_t depth, int digits, int8_t* packed, float* scale) {
  const Depth layer(depth);
  const int64_t step = digits * kTileBytes, panel = layer.blocks * layer.steps * step;
  const int64_t together = digit_table().together;
  int64_t places[kDigitStep];  // in a tile, of the elements of its first column
  for (int64_t i = 0; i < kDigitStep; ++i) places[i] = i / together * together * kDigitColumns + i % together;
  std::fill_n(packed, digit_bytes(columns, depth, digits), static_cast<int8_t>(0));
  std::fill_n(scale, ceil_div(columns, kDigitColumns) * kDigitColumns, 0.0f);
  for (int64_t c = 0; c < columns; ++c) {
    const float* row = weight + c * depth;
    // The scale comes from the block with the largest norm, so that no block is too large for two digits.
    double largest = 0.0, norm = 0.0;
    for (int64_t b = 0; b < layer.blocks; ++b) {
      double squares = 0.0;
      for (int64_t i = layer.start(b); i < layer.start(b + 1); ++i) {
        largest = std::max(largest, std::fabs(static_cast<double>(row[i])));
        squares += static_cast<double>(row[i]) * row[i];
      }
      if (!(squares <= norm)) norm = squares;
    }
    if (!std::isfinite(norm)) {
      scale[c] = std::nanf("");
      continue;
    }
    norm = std::sqrt(norm);
    if (norm < kNothingInDigits) continue;
    // Integers are in units of the lowest of three digits, even where only two are stored.
    const double by = std::min(kLargestDigits[3] / largest, 256.0 * kDigitNorm / norm);
    scale[c] = static_cast<float>(65536.0 / by);
    int8_t* out = packed + c / kDigitColumns * panel + c % kDigitColumns * together;
    for (int64_t i = 0; i < depth; ++i) {
      auto q = static_cast<int32_t>(std::lrint(row[i] * by));
      if (digits == 2) q = static_cast<int32_t>(std::lrint(row[i] * by / 256.0));
      int8_t* place = out + i / kDigitStep * step + places[i % kDigitStep];
      for (int d = digits - 1; d >= 0; --d) {
        const auto digit = static_cast<int8_t>(q & 0xFF);
        place[d * kTileBytes] = digit;
        q = (q - digit) / 256;
      }
    }
  }
}

void digit_linear(const float* x, int64_t rows, const Norm& norm, const Linear& layer, Finish finish, bool quick_gelu,
                  int threads, float* out) {
  const RowGroups groups = groups_of(rows, threads);
  const Depth depth(layer.depth);
  // With few rows, threads share the columns instead.
  const int64_t panels = ceil_div(layer.columns, kDigitColumns);
  const int64_t parts = groups.count() < threads ? parallel_slots(panels, threads) : 1;
  const int slots = parallel_slots(groups.count() * parts, threads);
  std::vector<LinearWorkspace> work;
  for (int slot = 0; slot < slots; ++slot)
    work.push_back({DigitRows(std::min(rows, kGroupRows), depth, used_digits(layer)), Scratch<float>(layer.depth)});
  parallel_for(groups.count() * parts, slots, [&](int64_t item, int slot) {
    const int64_t g = item / parts, part = item % parts;
    const int64_t from = panels * part / parts * kDigitColumns;
    const int64_t to = std::min(layer.columns, panels * (part + 1) / parts * kDigitColumns);
    const int64_t row = groups.start(g), count = groups.size(g);
    LinearWorkspace& workspace = work[static_cast<size_t>(slot)];
    fill(x + row * layer.depth, count, depth, norm, workspace.normed.get(), workspace.a);
    const Epilogue epilogue{finish == Finish::add, quick_gelu, out + row * layer.columns + from, layer.columns};
    digit_table().begin();
    multiply(workspace.a, count, layer, from, to, 0, depth.blocks, epilogue);
    digit_table().end();
  });
}

void digit_mlp(float* x, int64_t rows, const Norm& norm, const Linear& up_layer, const Linear& down, int threads) {
  const RowGroups groups = groups_of(rows, threads);
  if (groups.count() < threads) {
    Scratch<float> hidden(rows * up_layer.columns);
    digit_linear(x, rows, norm, up_layer, Finish::store, true, threads, hidden.get());
    digit_linear(hidden.get(), rows, Norm{nullptr, nullptr, 0.0f}, down, Finish::add, false, threads, x);
    return;
  }
  // One block of hidden columns at a time, so that the values between the two products stay in the second-level cache.
  const Depth depth(up_layer.depth), hidden_depth(down.depth), block(hidden_depth.width());
  const int digits = used_digits(up_layer);
  struct MlpWorkspace {
    DigitRows a, hidden;
    Scratch<float> normed, floats;
  };
  const int slots = parallel_slots(groups.count(), threads);
  std::vector<MlpWorkspace> work;
  const int64_t group_rows = std::min(rows, kGroupRows);
  for (int slot = 0; slot < slots; ++slot)
    work.push_back({DigitRows(group_rows, depth, digits), DigitRows(group_rows, block, digits),
                    Scratch<float>(up_layer.depth), Scratch<float>(group_rows * block.width())});
  parallel_for(groups.count(), slots, [&](int64_t g, int slot) {
    MlpWorkspace& workspace = work[static_cast<size_t>(slot)];
    float* rows_of = x + groups.start(g) * up_layer.depth;
    const int64_t count = groups.size(g);
    fill(rows_of, count, depth, norm, workspace.normed.get(), workspace.a);
    digit_table().begin();
    for (int64_t b = 0; b < hidden_depth.blocks; ++b) {
      const int64_t from = hidden_depth.start(b), to = hidden_depth.start(b + 1);
      multiply(workspace.a, count, up_layer, from, to, 0, depth.blocks,
               {false, true, workspace.floats.get(), block.width()});
      for (int64_t r = 0; r < count; ++r)
        workspace.hidden.set(r, 0, workspace.floats.get() + r * block.width(), to - from);
      multiply(workspace.hidden, count, down, 0, down.columns, b, b + 1, {true, false, rows_of, down.columns});
    }
    digit_table().end();
  });
}

}  // namespace dpad
