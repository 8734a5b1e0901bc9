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

// Rows are worked on in groups, each by one thread from the norm to the last product: what lies between stays in the
// second-level cache, and the weights come by once for every group. As many groups for every thread, and whole tiles.
int64_t group_rows(int64_t rows, int threads) {
  constexpr int64_t kTile = 6;
  const int64_t workers = parallel_slots(rows, threads);
  const int64_t groups = up(up(rows, kGemmRows), workers) * workers;
  return std::min(kGemmRows, up(up(rows, groups), kTile) * kTile);
}

// One thread's memory for products from at most kGemmRows rows of at most `depth` elements.
struct Workspace {
  explicit Workspace(int64_t depth)
      : normed(depth),
        blocked(kGemmRows * up(depth, kBlock16) * kBlock16),
        sums(kGemmRows * kPanel),
        scale(kGemmRows) {}
  Scratch normed, blocked, sums, scale;
};

// The product of one group: rows x, already the group's, and their place in out; both contiguous.
void group_linear(const float* x, int64_t rows, const Norm& norm, const Linear& layer, Finish finish, Workspace& work,
                  float* out) {
  const TowerKernels& kernels = tower_kernels();
  const bool reduced = layer.scale != nullptr;
  const int64_t depth = reduced ? kBlock16 : kBlock32, blocks = up(layer.depth, depth);
  auto* q = reinterpret_cast<int16_t*>(work.blocked.get());
  float *plain = work.blocked.get(), *sums = work.sums.get();
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = x + r * layer.depth;
    if (norm.weight != nullptr) {
      kernels.layer_norm(row, norm.weight, norm.bias, layer.depth, norm.eps, work.normed.get());
      row = work.normed.get();
    }
    if (reduced)
      work.scale.get()[r] = kernels.quantise(row, layer.depth, q + r * depth, rows * depth);
    else
      kernels.arrange(row, layer.depth, plain + r * depth, rows * depth);
  }
  for (int64_t column = 0; column < layer.columns; column += kPanel) {
    const int64_t count = std::min(kPanel, layer.columns - column), panel = column * blocks * depth;
    for (int64_t b = 0; b < blocks; ++b) {
      const float* soon = b + 1 == blocks && count == kPanel ? out + column : nullptr;
      if (reduced)
        kernels.block16(q + b * rows * depth, static_cast<const int16_t*>(layer.packed) + panel + b * depth * kPanel,
                        rows, b == 0, sums, soon, layer.columns);
      else
        kernels.block32(plain + b * rows * depth, static_cast<const float*>(layer.packed) + panel + b * depth * kPanel,
                        rows, b == 0, sums, soon, layer.columns);
    }
    for (int64_t r = 0; r < rows; ++r)
      kernels.finish(sums + r * kPanel, reduced ? work.scale.get()[r] : 1.0f, reduced ? layer.scale + column : nullptr,
                     layer.bias != nullptr ? layer.bias + column : nullptr, count, finish == Finish::quick_gelu,
                     finish == Finish::add, out + r * layer.columns + column);
  }
}

}  // namespace

int64_t packed_elements(int64_t columns, int64_t depth, bool reduced) {
  const int64_t block = reduced ? kBlock16 : kBlock32;
  return up(columns, kPanel) * kPanel * up(depth, block) * block;
}

void pack16(const float* weight, int64_t columns, int64_t depth, int16_t* packed, float* scale) {
  const TowerKernels& kernels = tower_kernels();
  const int64_t padded = up(depth, kBlock16) * kBlock16;
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
  const int64_t padded = up(depth, kBlock32) * kBlock32;
  std::fill_n(packed, packed_elements(columns, depth, false), 0.0f);
  for (int64_t c = 0; c < columns; ++c)
    for (int64_t i = 0; i < depth; ++i)
      packed[c / kPanel * kPanel * padded + i * kPanel + c % kPanel] = weight[c * depth + i];
}

void layer_norm(const float* x, int64_t rows, int64_t depth, const Norm& norm, int threads, float* out) {
  const TowerKernels& kernels = tower_kernels();
  const int64_t group = group_rows(rows, threads);
  parallel_for(up(rows, group), threads, [&](int64_t g, int) {
    for (int64_t r = g * group; r < std::min(rows, (g + 1) * group); ++r)
      kernels.layer_norm(x + r * depth, norm.weight, norm.bias, depth, norm.eps, out + r * depth);
  });
}

void linear(const float* x, int64_t rows, const Norm& norm, const Linear& layer, Finish finish, int threads,
            float* out) {
  const int64_t group = group_rows(rows, threads), groups = up(rows, group);
  std::vector<Workspace> work;
  for (int slot = 0; slot < parallel_slots(groups, threads); ++slot) work.emplace_back(layer.depth);
  parallel_for(groups, threads, [&](int64_t g, int slot) {
    const int64_t row = g * group;
    group_linear(x + row * layer.depth, std::min(group, rows - row), norm, layer, finish,
                 work[static_cast<size_t>(slot)], out + row * layer.columns);
  });
}

void mlp(float* x, int64_t rows, const Norm& norm, const Linear& up_layer, const Linear& down, int threads) {
  const int64_t group = group_rows(rows, threads), groups = up(rows, group);
  std::vector<Workspace> work;
  std::vector<Scratch> hidden;
  for (int slot = 0; slot < parallel_slots(groups, threads); ++slot) {
    work.emplace_back(std::max(up_layer.depth, down.depth));
    hidden.emplace_back(kGemmRows * up_layer.columns);
  }
  parallel_for(groups, threads, [&](int64_t g, int slot) {
    const auto s = static_cast<size_t>(slot);
    float* rows_of = x + g * group * up_layer.depth;
    const int64_t count = std::min(group, rows - g * group);
    group_linear(rows_of, count, norm, up_layer, Finish::quick_gelu, work[s], hidden[s].get());
    group_linear(hidden[s].get(), count, {nullptr, nullptr, 0.0f}, down, Finish::add, work[s], rows_of);
  });
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
  const int64_t padded = up(longest, kKeyStep) * kKeyStep, width = p.heads * p.dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(p.dim));
  std::vector<Scratch> scratch;
  std::vector<std::vector<const float*>> values;
  for (int slot = 0; slot < parallel_slots(p.sequences, p.threads); ++slot) {
    scratch.emplace_back((p.dim + 4) * padded);
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
