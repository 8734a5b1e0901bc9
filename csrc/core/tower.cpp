#include "core/tower.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <new>
#include <vector>

#include "core/parallel.h"
#include "simd/tower_kernels.h"

namespace dpad {
namespace {

int64_t up(int64_t value, int64_t step) { return (value + step - 1) / step; }

// Floats at the start of a cache line, so that no vector load straddles two.
class Scratch {
 public:
  explicit Scratch(int64_t floats)
      : data_(static_cast<float*>(::operator new(static_cast<size_t>(floats) * sizeof(float), std::align_val_t(64)))) {}
  float* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(float* data) const { ::operator delete(data, std::align_val_t(64)); }
  };
  std::unique_ptr<float, Free> data_;
};

// Runs one(row, scratch) on every row, some rows at a time.
template <typename One>
void each_row(const RowsProblem& p, const One& one) {
  constexpr int64_t kGroup = 16;
  const int64_t groups = up(p.rows, kGroup);
  std::vector<Scratch> scratch;
  for (int slot = 0; slot < parallel_slots(groups, p.threads); ++slot) scratch.emplace_back(p.depth);
  parallel_for(groups, p.threads, [&](int64_t group, int slot) {
    float* normed = scratch[static_cast<size_t>(slot)].get();
    for (int64_t r = group * kGroup; r < std::min(p.rows, (group + 1) * kGroup); ++r) one(r, normed);
  });
}

// out = x W^T, by rows and panels; `multiply(block, a, panel, ...)` is the kernel of one block.
template <typename Element, typename Multiply>
void linear(const LinearProblem& p, const Element* blocked, const float* row_scale, const Element* packed,
            const float* scale, float* out, const Multiply& multiply) {
  constexpr int64_t kDepth = 256 / static_cast<int64_t>(sizeof(Element));
  const TowerKernels& kernels = tower_kernels();
  const int64_t panels = up(p.columns, kPanel), groups = up(p.rows, kGemmRows), blocks = up(p.depth, kDepth);
  std::vector<Scratch> scratch;
  for (int slot = 0; slot < parallel_slots(panels * groups, p.threads); ++slot)
    scratch.emplace_back(kGemmRows * kPanel);
  // Neighbouring items share a panel: it stays in the second-level cache while the rows pass by.
  parallel_for(panels * groups, p.threads, [&](int64_t item, int slot) {
    const int64_t panel = item / groups, row = item % groups * kGemmRows;
    const int64_t rows = std::min(kGemmRows, p.rows - row), column = panel * kPanel;
    const int64_t count = std::min(kPanel, p.columns - column);
    float* sums = scratch[static_cast<size_t>(slot)].get();
    float* place = out + row * p.columns + column;
    for (int64_t b = 0; b < blocks; ++b)
      multiply(blocked + (b * p.rows + row) * kDepth, packed + (panel * blocks + b) * kDepth * kPanel, rows, b == 0,
               sums, b + 1 == blocks && count == kPanel ? place : nullptr, p.columns);
    for (int64_t r = 0; r < rows; ++r)
      kernels.finish(sums + r * kPanel, row_scale != nullptr ? row_scale[row + r] : 1.0f,
                     scale != nullptr ? scale + column : nullptr, p.bias != nullptr ? p.bias + column : nullptr, count,
                     p.finish == Finish::quick_gelu, p.finish == Finish::add, place + r * p.columns);
  });
}

}  // namespace

int64_t packed_elements(int64_t columns, int64_t depth, bool reduced) {
  return up(columns, kPanel) * kPanel * blocked_elements(1, depth, reduced);
}

int64_t blocked_elements(int64_t rows, int64_t depth, bool reduced) {
  const int64_t block = reduced ? kBlock16 : kBlock32;
  return rows * up(depth, block) * block;
}

void pack16(const float* weight, int64_t columns, int64_t depth, int16_t* packed, float* scale) {
  const TowerKernels& kernels = tower_kernels();
  const int64_t padded = blocked_elements(1, depth, true);
  std::vector<int16_t> column(static_cast<size_t>(padded));
  std::fill_n(packed, packed_elements(columns, depth, true), static_cast<int16_t>(0));
  std::fill_n(scale, up(columns, kPanel) * kPanel, 0.0f);
  for (int64_t c = 0; c < columns; ++c) {
    scale[c] = kernels.quantise(weight + c * depth, depth, column.data(), kBlock16);
    int16_t* panel = packed + c / kPanel * kPanel * padded;
    for (int64_t i = 0; i < padded; ++i)
      panel[i / 2 * kPanel * 2 + c % kPanel * 2 + i % 2] = column[static_cast<size_t>(i)];
  }
}

void pack32(const float* weight, int64_t columns, int64_t depth, float* packed) {
  const int64_t padded = blocked_elements(1, depth, false);
  std::fill_n(packed, packed_elements(columns, depth, false), 0.0f);
  for (int64_t c = 0; c < columns; ++c)
    for (int64_t i = 0; i < depth; ++i)
      packed[c / kPanel * kPanel * padded + i * kPanel + c % kPanel] = weight[c * depth + i];
}

void block_rows16(const RowsProblem& p, const float* x, int16_t* blocked, float* scale) {
  const TowerKernels& kernels = tower_kernels();
  each_row(p, [&](int64_t r, float* normed) {
    const float* row = x + r * p.depth;
    if (p.weight != nullptr) kernels.layer_norm(row, p.weight, p.bias, p.depth, p.eps, normed);
    scale[r] = kernels.quantise(p.weight != nullptr ? normed : row, p.depth, blocked + r * kBlock16, p.rows * kBlock16);
  });
}

void block_rows32(const RowsProblem& p, const float* x, float* blocked) {
  const TowerKernels& kernels = tower_kernels();
  each_row(p, [&](int64_t r, float* normed) {
    const float* row = x + r * p.depth;
    if (p.weight != nullptr) kernels.layer_norm(row, p.weight, p.bias, p.depth, p.eps, normed);
    kernels.arrange(p.weight != nullptr ? normed : row, p.depth, blocked + r * kBlock32, p.rows * kBlock32);
  });
}

void layer_norm(const RowsProblem& p, const float* x, float* out) {
  const TowerKernels& kernels = tower_kernels();
  each_row(p, [&](int64_t r, float*) {
    kernels.layer_norm(x + r * p.depth, p.weight, p.bias, p.depth, p.eps, out + r * p.depth);
  });
}

void linear16(const LinearProblem& p, const int16_t* blocked, const float* row_scale, const int16_t* packed,
              const float* scale, float* out) {
  linear(p, blocked, row_scale, packed, scale, out, tower_kernels().block16);
}

void linear32(const LinearProblem& p, const float* blocked, const float* packed, float* out) {
  linear(p, blocked, nullptr, packed, nullptr, out, tower_kernels().block32);
}

void attention(const AttentionProblem& p, const float* q, int64_t q_stride, const float* k, const float* v,
               int64_t kv_stride, float* out) {
  const TowerKernels& kernels = tower_kernels();
  int64_t longest = 0;
  std::vector<int64_t> starts(static_cast<size_t>(p.sequences) + 1, 0);
  for (int64_t s = 0; s < p.sequences; ++s) {
    longest = std::max(longest, p.offsets[s + 1] - p.offsets[s]);
    starts[static_cast<size_t>(s) + 1] = starts[static_cast<size_t>(s)] + p.last[s] - p.first[s];
  }
  const int64_t padded = up(longest, 16) * 16, width = p.heads * p.dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(p.dim));
  std::vector<Scratch> scratch;
  std::vector<std::vector<const float*>> values;
  for (int slot = 0; slot < parallel_slots(p.sequences, p.threads); ++slot) {
    scratch.emplace_back((p.dim + 1) * padded);
    values.emplace_back(static_cast<size_t>(longest));
  }
  parallel_for(p.sequences, p.threads, [&](int64_t s, int slot) {
    const int64_t* path = p.path + p.offsets[s];
    const int64_t length = p.offsets[s + 1] - p.offsets[s], row = starts[static_cast<size_t>(s)];
    float* keys = scratch[static_cast<size_t>(slot)].get();
    float* scores = keys + p.dim * padded;
    std::vector<const float*>& rows = values[static_cast<size_t>(slot)];
    for (int64_t h = 0; h < p.heads; ++h) {
      for (int64_t j = 0; j < padded; ++j) {
        const float* key = j < length ? k + path[j] * kv_stride + h * p.dim : nullptr;
        for (int64_t d = 0; d < p.dim; ++d) keys[d * padded + j] = key != nullptr ? key[d] : 0.0f;
        if (j < length) rows[static_cast<size_t>(j)] = v + path[j] * kv_stride + h * p.dim;
      }
      kernels.attend(q + row * q_stride + h * p.dim, q_stride, keys, padded, rows.data(), length, p.dim, p.first[s],
                     p.last[s], p.causal, scale, scores, out + row * width + h * p.dim, width);
    }
  });
}

const char* tower_level() { return has_tower_avx512() ? "avx512-vnni" : "scalar"; }

}  // namespace dpad
