#include "core/tower/tower.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/base/parallel.h"
#include "core/base/scratch.h"
#include "core/tower/digits.h"
#include "core/tower/row_groups.h"
#include "simd/digits/table.h"
#include "simd/tower/table.h"

namespace dpad {
namespace {

using Floats = Scratch<float>;

constexpr int64_t kTile = 6;
static_assert(kGemmRows % kTile == 0, "a group of whole tiles has room");

RowGroups groups_of(int64_t rows, int threads) { return {rows, kTile, kGemmRows, threads}; }

// A group of rows in the order in which products read them: block by block, as 16-bit integers with a scale for every
// row of every block, or as floats.
struct BlockedRows {
  BlockedRows(int64_t depth, bool reduced)
      : reduced(reduced),
        block(reduced ? kBlock16 : kBlock32),
        blocks(ceil_div(depth, block)),
        data(kGemmRows * blocks * block / (reduced ? 2 : 1)),
        scales(reduced ? kGemmRows * blocks : 0) {}
  int16_t* integers() const { return reinterpret_cast<int16_t*>(data.get()); }
  float* scale(int64_t b) const { return scales.get() + b * kGemmRows; }

  bool reduced;
  int64_t block, blocks;
  Floats data, scales;
};

// Turns rows x into blocks, after the norm if there is one.
void fill(const float* x, int64_t rows, int64_t depth, const Norm& norm, float* normed, BlockedRows& out) {
  const TowerTable& table = tower_table();
  for (int64_t r = 0; r < rows; ++r, x += depth) {
    const float* row = x;
    if (norm.weight != nullptr) {
      table.layer_norm(row, norm.weight, norm.bias, depth, norm.eps, normed);
      row = normed;
    }
    if (out.reduced)
      table.quantise(row, depth, out.integers() + r * kBlock16, rows * kBlock16, out.scale(0) + r, kGemmRows);
    else
      table.to_blocks(row, depth, out.data.get() + r * kBlock32, rows * kBlock32);
  }
}

// Multiplies `rows` rows with one panel of weights. `prefetch_out` is null, or where the results will be written: four
// cache lines of each row, of which each of the last four blocks prefetches one.
void multiply(const BlockedRows& a, int64_t rows, const Linear& layer, int64_t column, float* sums,
              const float* prefetch_out) {
  const TowerTable& table = tower_table();
  const int64_t panel = column * a.blocks * a.block, step = a.block * kPanel;
  for (int64_t b = 0; b < a.blocks; ++b) {
    const int64_t line = b - (a.blocks - 4);
    const float* prefetch_line = prefetch_out != nullptr && line >= 0 ? prefetch_out + line * 16 : nullptr;
    if (a.reduced)
      table.block16(a.integers() + b * rows * kBlock16, a.scale(b),
                    static_cast<const int16_t*>(layer.packed) + panel + b * step, rows, b == 0, sums, prefetch_line,
                    layer.columns);
    else
      table.block32(a.data.get() + b * rows * kBlock32, static_cast<const float*>(layer.packed) + panel + b * step,
                    rows, b == 0, sums, prefetch_line, layer.columns);
  }
}

const float* at_column(const float* values, int64_t column) { return values == nullptr ? nullptr : values + column; }

// The product of one group, [rows, layer.columns].
void group_linear(const BlockedRows& a, int64_t rows, const Linear& layer, Finish finish, float* sums, float* out) {
  const TowerTable& table = tower_table();
  for (int64_t column = 0; column < layer.columns; column += kPanel) {
    const int64_t count = std::min(kPanel, layer.columns - column);
    multiply(a, rows, layer, column, sums, count == kPanel ? out + column : nullptr);
    for (int64_t r = 0; r < rows; ++r)
      table.finish(sums + r * kPanel, at_column(layer.scale, column), at_column(layer.bias, column), count, false,
                   finish == Finish::add, out + r * layer.columns + column);
  }
}

// Applies x * sigmoid(1.702 x) to the product of one group, a block of columns at a time, and stores it in the form
// that the next product reads. A whole row of floats for each row would not fit the second-level cache.
void group_hidden(const BlockedRows& a, int64_t rows, const Linear& layer, float* sums, BlockedRows& hidden) {
  const TowerTable& table = tower_table();
  float* right = sums + kGemmRows * kPanel;
  for (int64_t b = 0; b < hidden.blocks; ++b) {
    const int64_t column = b * hidden.block, count = std::min(hidden.block, layer.columns - column);
    const float* bias = at_column(layer.bias, column);
    multiply(a, rows, layer, column, sums, nullptr);
    if (count > kPanel) multiply(a, rows, layer, column + kPanel, right, nullptr);
    for (int64_t r = 0; r < rows; ++r) {
      const float* left = sums + r * kPanel;
      if (hidden.reduced) {
        hidden.scale(b)[r] = table.finish_block16(left, right + r * kPanel, layer.scale + column, bias, count,
                                                  hidden.integers() + (b * rows + r) * kBlock16);
      } else {
        float* out = hidden.data.get() + (b * rows + r) * kBlock32;
        table.finish(left, nullptr, bias, count, true, false, out);
        std::fill(out + count, out + kBlock32, 0.0f);
      }
    }
  }
}

}  // namespace

int64_t packed_elements(int64_t columns, int64_t depth, bool reduced) {
  const int64_t block = reduced ? kBlock16 : kBlock32;
  return ceil_div(columns, kPanel) * kPanel * ceil_div(depth, block) * block;
}

void pack16(const float* weight, int64_t columns, int64_t depth, int16_t* packed, float* scale) {
  const TowerTable& table = tower_table();
  const int64_t blocks = ceil_div(depth, kBlock16), padded = blocks * kBlock16;
  std::vector<int16_t> rounded(kBlock16);
  std::vector<float> worth(static_cast<size_t>(blocks));
  std::fill_n(packed, packed_elements(columns, depth, true), static_cast<int16_t>(0));
  std::fill_n(scale, ceil_div(columns, kPanel) * kPanel, 0.0f);
  for (int64_t c = 0; c < columns; ++c) {
    // One scale for all blocks of a column: the coarsest, so that none overflows. NaN if any element is not finite.
    float coarsest = 0.0f;
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t start = b * kBlock16;
      table.quantise(weight + c * depth + start, std::min(kBlock16, depth - start), rounded.data(), kBlock16,
                     &worth[static_cast<size_t>(b)], 1);
      if (!(worth[static_cast<size_t>(b)] <= coarsest)) coarsest = worth[static_cast<size_t>(b)];
    }
    scale[c] = coarsest;
    if (!(coarsest > 0.0f)) continue;
    int16_t* panel = packed + c / kPanel * kPanel * padded;
    const float by = 1.0f / coarsest;
    for (int64_t i = 0; i < depth; ++i)
      panel[i / 2 * kPanel * 2 + c % kPanel * 2 + i % 2] =
          static_cast<int16_t>(std::nearbyint(weight[c * depth + i] * by));
  }
}

void pack32(const float* weight, int64_t columns, int64_t depth, float* packed) {
  const int64_t padded = ceil_div(depth, kBlock32) * kBlock32;
  std::fill_n(packed, packed_elements(columns, depth, false), 0.0f);
  for (int64_t c = 0; c < columns; ++c)
    for (int64_t i = 0; i < depth; ++i)
      packed[c / kPanel * kPanel * padded + i * kPanel + c % kPanel] = weight[c * depth + i];
}

void layer_norm(const float* x, int64_t rows, int64_t depth, const Norm& norm, int threads, float* out) {
  const TowerTable& table = tower_table();
  const RowGroups groups = groups_of(rows, threads);
  parallel_for(groups.count(), threads, [&](int64_t g, int) {
    for (int64_t r = groups.start(g); r < groups.start(g + 1); ++r)
      table.layer_norm(x + r * depth, norm.weight, norm.bias, depth, norm.eps, out + r * depth);
  });
}

void linear(const float* x, int64_t rows, const Norm& norm, const Linear& layer, Finish finish, int threads,
            float* out) {
  if (layer.stored_digits > 0) return digit_linear(x, rows, norm, layer, finish, false, threads, out);
  const RowGroups groups = groups_of(rows, threads);
  struct Workspace {
    BlockedRows blocked;
    Floats normed, sums;
  };
  const int slots = parallel_slots(groups.count(), threads);
  std::vector<Workspace> work;
  for (int slot = 0; slot < slots; ++slot)
    work.push_back({{layer.depth, layer.products == Products::int16}, Floats(layer.depth), Floats(kGemmRows * kPanel)});
  parallel_for(groups.count(), slots, [&](int64_t g, int slot) {
    Workspace& workspace = work[static_cast<size_t>(slot)];
    const int64_t row = groups.start(g), count = groups.size(g);
    fill(x + row * layer.depth, count, layer.depth, norm, workspace.normed.get(), workspace.blocked);
    group_linear(workspace.blocked, count, layer, finish, workspace.sums.get(), out + row * layer.columns);
  });
}

void mlp(float* x, int64_t rows, const Norm& norm, const Linear& up_layer, const Linear& down, int threads) {
  if (up_layer.stored_digits > 0) return digit_mlp(x, rows, norm, up_layer, down, threads);
  const RowGroups groups = groups_of(rows, threads);
  const bool reduced = up_layer.products == Products::int16;
  struct Workspace {
    BlockedRows blocked, hidden;
    Floats normed, sums;
  };
  const int slots = parallel_slots(groups.count(), threads);
  std::vector<Workspace> work;
  for (int slot = 0; slot < slots; ++slot)
    work.push_back({{up_layer.depth, reduced},
                    {up_layer.columns, reduced},
                    Floats(up_layer.depth),
                    Floats(2 * kGemmRows * kPanel)});
  parallel_for(groups.count(), slots, [&](int64_t g, int slot) {
    Workspace& workspace = work[static_cast<size_t>(slot)];
    float* rows_of = x + groups.start(g) * up_layer.depth;
    const int64_t count = groups.size(g);
    fill(rows_of, count, up_layer.depth, norm, workspace.normed.get(), workspace.blocked);
    group_hidden(workspace.blocked, count, up_layer, workspace.sums.get(), workspace.hidden);
    group_linear(workspace.hidden, count, down, Finish::add, workspace.sums.get(), rows_of);
  });
}

void attention(const AttentionProblem& p, const float* q, int64_t q_stride, const float* k, const float* v,
               int64_t kv_stride, float* out) {
  const TowerTable& table = tower_table();
  int64_t longest = 0;
  std::vector<int64_t> starts(static_cast<size_t>(p.sequences) + 1, 0);
  for (int64_t s = 0; s < p.sequences; ++s) {
    longest = std::max(longest, p.offsets[s + 1] - p.offsets[s]);
    starts[static_cast<size_t>(s) + 1] = starts[static_cast<size_t>(s)] + p.last[s] - p.first[s];
  }
  const int64_t padded = ceil_div(longest, kKeyStep) * kKeyStep, width = p.heads * p.dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(p.dim));
  const int slots = parallel_slots(p.sequences, p.threads);
  std::vector<Floats> scratch;
  std::vector<std::vector<const float*>> values;
  for (int slot = 0; slot < slots; ++slot) {
    scratch.emplace_back((p.dim + 4) * padded);
    values.emplace_back(static_cast<size_t>(longest));
  }
  parallel_for(p.sequences, slots, [&](int64_t s, int slot) {
    const int64_t* path = p.path + p.offsets[s];
    const int64_t length = p.offsets[s + 1] - p.offsets[s], row = starts[static_cast<size_t>(s)];
    float* keys = scratch[static_cast<size_t>(slot)].get();
    float* scores = keys + p.dim * padded;
    std::vector<const float*>& rows = values[static_cast<size_t>(slot)];
    for (int64_t h = 0; h < p.heads; ++h) {
      for (int64_t j = 0; j < length; ++j) rows[static_cast<size_t>(j)] = k + path[j] * kv_stride + h * p.dim;
      table.transpose_keys(rows.data(), length, p.dim, padded, keys);
      for (int64_t j = 0; j < length; ++j) rows[static_cast<size_t>(j)] = v + path[j] * kv_stride + h * p.dim;
      table.attend(q + row * q_stride + h * p.dim, q_stride, keys, padded, rows.data(), length, p.dim, p.first[s],
                   p.last[s], p.causal, scale, scores, out + row * width + h * p.dim, width);
    }
  });
}

SimdLevel tower_level() { return std::max(digit_table().level, tower_table().level); }

}  // namespace dpad
