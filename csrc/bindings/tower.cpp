// Layers of a transformer tower. dpad_fast/clip/tower/products.py builds every argument from weights that weights.py
// has checked.
#include "core/tower/tower.h"

#include <pybind11/stl.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

#include "bindings/address.h"
#include "bindings/bind.h"

namespace {

constexpr std::pair<const char*, dpad::Finish> kFinishes[] = {
    {"store", dpad::Finish::store},
    {"add", dpad::Finish::add},
};
constexpr std::pair<const char*, dpad::Products> kProducts[] = {
    {"float32", dpad::Products::float32},
    {"int16", dpad::Products::int16},
    {"digits2", dpad::Products::digits2},
    {"digits3", dpad::Products::digits3},
};

// (products, stored digits or 0, columns, depth, packed, scale or 0, bias or 0)
using LinearParts = std::tuple<std::string, int, int64_t, int64_t, Address, Address, Address>;
// (weight or 0, bias or 0, eps)
using NormParts = std::tuple<Address, Address, float>;

constexpr int64_t kWidest = int64_t{1} << 24;  // columns or depth of a layer: numbers of bytes stay within 64 bits

void check_layer(int64_t columns, int64_t depth) {
  check_range("columns", columns, 1, kWidest);
  check_range("depth", depth, 1, kWidest);
}

void check_digits(int digits) { check_range("digits", digits, 2, 3); }

dpad::Linear linear_of(const LinearParts& parts) {
  const auto& [products, digits, columns, depth, packed, scale, bias] = parts;
  check_layer(columns, depth);
  const dpad::Products kind = named("products", products, kProducts);
  const bool in_digits = kind == dpad::Products::digits2 || kind == dpad::Products::digits3;
  if (in_digits) check_range("digits", digits, kind == dpad::Products::digits2 ? 2 : 3, 3);
  if (!in_digits) check_range("digits", digits, 0, 0);
  if (scale == 0 && kind != dpad::Products::float32) throw std::invalid_argument("scale is missing");
  return {kind, digits, columns, depth, at<const void>(packed), at<const float>(scale), at<const float>(bias)};
}

dpad::Norm norm_of(const NormParts& parts) {
  const auto& [weight, bias, eps] = parts;
  if (weight != 0 && bias == 0) throw std::invalid_argument("the norm's bias is missing");
  return {at<const float>(weight), at<const float>(bias), eps};
}

void layer_norm(Address x, int64_t rows, int64_t depth, const NormParts& norm, int threads, Address out) {
  check_range("rows", rows, 0, kMostItems);
  check_range("depth", depth, 1, kWidest);
  if (std::get<0>(norm) == 0) throw std::invalid_argument("the norm's weight is missing");
  const dpad::Norm given = norm_of(norm);
  without_gil([&] { dpad::layer_norm(at<const float>(x), rows, depth, given, threads, at<float>(out)); });
}

void linear(Address x, int64_t rows, const NormParts& norm, const LinearParts& layer, const std::string& finish,
            int threads, Address out) {
  check_range("rows", rows, 0, kMostItems);
  const dpad::Linear given = linear_of(layer);
  const dpad::Norm before = norm_of(norm);
  const dpad::Finish after = named("finish", finish, kFinishes);
  without_gil([&] { dpad::linear(at<const float>(x), rows, before, given, after, threads, at<float>(out)); });
}

void mlp(Address x, int64_t rows, const NormParts& norm, const LinearParts& up, const LinearParts& down, int threads) {
  check_range("rows", rows, 0, kMostItems);
  const dpad::Linear first = linear_of(up), second = linear_of(down);
  check_range("depth of the second layer", second.depth, first.columns, first.columns);
  check_range("columns of the second layer", second.columns, first.depth, first.depth);
  if (first.products != second.products) throw std::invalid_argument("both layers must be of the same products");
  const dpad::Norm before = norm_of(norm);
  without_gil([&] { dpad::mlp(at<float>(x), rows, before, first, second, threads); });
}

// Rows of each sequence, and which of them are queries.
void check_sequences(int64_t n, const int64_t* offsets, const int64_t* first, const int64_t* last) {
  check_range("sequences", n, 0, kMostItems);
  for (int64_t s = 0; s < n; ++s) {
    check_range("offsets", offsets[s], 0, kMostItems);
    check_range("offsets", offsets[s + 1], offsets[s], kMostItems);
    check_range("last", last[s], 0, offsets[s + 1] - offsets[s]);
    check_range("first", first[s], 0, last[s]);
  }
}

void attention(int64_t sequences, Address path, Address offsets, Address first, Address last, int64_t heads,
               int64_t dim, bool causal, int threads, Address q, int64_t q_stride, Address k, Address v,
               int64_t kv_stride, Address out) {
  check_range("heads", heads, 1, kWidest);
  check_range("dim", dim, 1, kWidest);
  check_sequences(sequences, at<const int64_t>(offsets), at<const int64_t>(first), at<const int64_t>(last));
  const dpad::AttentionProblem problem{sequences,
                                       at<const int64_t>(path),
                                       at<const int64_t>(offsets),
                                       at<const int64_t>(first),
                                       at<const int64_t>(last),
                                       heads,
                                       dim,
                                       causal,
                                       threads};
  without_gil([&] {
    dpad::attention(problem, at<const float>(q), q_stride, at<const float>(k), at<const float>(v), kv_stride,
                    at<float>(out));
  });
}

int64_t packed_elements(int64_t columns, int64_t depth, bool reduced) {
  check_layer(columns, depth);
  return dpad::packed_elements(columns, depth, reduced);
}

int64_t digit_bytes(int64_t columns, int64_t depth, int digits) {
  check_layer(columns, depth);
  check_digits(digits);
  return dpad::digit_bytes(columns, depth, digits);
}

// weight [columns, depth] to panels of 16-bit integers.
void pack16(Address weight, int64_t columns, int64_t depth, Address packed, Address scale) {
  check_layer(columns, depth);
  without_gil([&] { dpad::pack16(at<const float>(weight), columns, depth, at<int16_t>(packed), at<float>(scale)); });
}

void pack32(Address weight, int64_t columns, int64_t depth, Address packed) {
  check_layer(columns, depth);
  without_gil([&] { dpad::pack32(at<const float>(weight), columns, depth, at<float>(packed)); });
}

void pack_digits(Address weight, int64_t columns, int64_t depth, int digits, Address packed, Address scale) {
  check_layer(columns, depth);
  check_digits(digits);
  without_gil([&] {
    dpad::pack_digits(at<const float>(weight), columns, depth, digits, at<int8_t>(packed), at<float>(scale));
  });
}

}  // namespace

void bind_tower(pybind11::module_& m) {
  m.def("packed_elements", &packed_elements);
  m.def("pack16", &pack16);
  m.def("pack32", &pack32);
  m.def("digit_bytes", &digit_bytes);
  m.def("pack_digits", &pack_digits);
  m.def("tower_layer_norm", &layer_norm);
  m.def("tower_linear", &linear);
  m.def("tower_mlp", &mlp);
  m.def("path_attention", &attention);
}
