#include "bindings/bind.h"

#include <pybind11/stl.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <tuple>

#include "core/tower/tower.h"

namespace py = pybind11;

namespace {

using Address = std::uintptr_t;

// Addresses arrive as integers: shapes and dtypes are checked in dpad_fast/clip/tower.py, which alone calls this.
template <typename T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

dpad::Finish finish_named(const std::string& name) {
  if (name == "store") return dpad::Finish::store;
  if (name == "add") return dpad::Finish::add;
  throw std::invalid_argument("finish is unknown here: " + name);
}

dpad::Products products_named(const std::string& name) {
  if (name == "float32") return dpad::Products::float32;
  if (name == "int16") return dpad::Products::int16;
  if (name == "digits2") return dpad::Products::digits2;
  if (name == "digits3") return dpad::Products::digits3;
  throw std::invalid_argument("products are unknown here: " + name);
}

// (products, stored digits or 0, columns, depth, packed, scale or 0, bias or 0)
using LinearParts = std::tuple<std::string, int, int64_t, int64_t, Address, Address, Address>;
// (weight or 0, bias or 0, eps)
using NormParts = std::tuple<Address, Address, float>;

dpad::Linear linear_of(const LinearParts& parts) {
  const auto& [products, digits, columns, depth, packed, scale, bias] = parts;
  return {products_named(products), digits, columns, depth, at<const void>(packed), at<const float>(scale),
          at<const float>(bias)};
}

dpad::Norm norm_of(const NormParts& parts) {
  const auto& [weight, bias, eps] = parts;
  return {at<const float>(weight), at<const float>(bias), eps};
}

void py_layer_norm(Address x, int64_t rows, int64_t depth, const NormParts& norm, int threads, Address out) {
  const dpad::Norm given = norm_of(norm);
  py::gil_scoped_release release;
  dpad::layer_norm(at<const float>(x), rows, depth, given, threads, at<float>(out));
}

void py_linear(Address x, int64_t rows, const NormParts& norm, const LinearParts& layer, const std::string& finish,
               int threads, Address out) {
  const dpad::Linear given = linear_of(layer);
  const dpad::Norm before = norm_of(norm);
  const dpad::Finish after = finish_named(finish);
  py::gil_scoped_release release;
  dpad::linear(at<const float>(x), rows, before, given, after, threads, at<float>(out));
}

void py_mlp(Address x, int64_t rows, const NormParts& norm, const LinearParts& up, const LinearParts& down,
            int threads) {
  const dpad::Linear first = linear_of(up), second = linear_of(down);
  const dpad::Norm before = norm_of(norm);
  py::gil_scoped_release release;
  dpad::mlp(at<float>(x), rows, before, first, second, threads);
}

void py_attention(int64_t sequences, Address path, Address offsets, Address first, Address last, int64_t heads,
                  int64_t dim, bool causal, int threads, Address q, int64_t q_stride, Address k, Address v,
                  int64_t kv_stride, Address out) {
  const dpad::AttentionProblem problem{sequences,
                                       at<const int64_t>(path),
                                       at<const int64_t>(offsets),
                                       at<const int64_t>(first),
                                       at<const int64_t>(last),
                                       heads,
                                       dim,
                                       causal,
                                       threads};
  py::gil_scoped_release release;
  dpad::attention(problem, at<const float>(q), q_stride, at<const float>(k), at<const float>(v), kv_stride,
                  at<float>(out));
}

}  // namespace

void bind_tower(py::module_& m) {
  m.def("tower_level", &dpad::tower_level);
  m.def("packed_elements", &dpad::packed_elements);
  m.def("pack16", [](Address weight, int64_t columns, int64_t depth, Address packed, Address scale) {
    py::gil_scoped_release release;
    dpad::pack16(at<const float>(weight), columns, depth, at<int16_t>(packed), at<float>(scale));
  });
  m.def("pack32", [](Address weight, int64_t columns, int64_t depth, Address packed) {
    py::gil_scoped_release release;
    dpad::pack32(at<const float>(weight), columns, depth, at<float>(packed));
  });
  m.def("digit_bytes", &dpad::digit_bytes);
  m.def("pack_digits", [](Address weight, int64_t columns, int64_t depth, int digits, Address packed, Address scale) {
    py::gil_scoped_release release;
    dpad::pack_digits(at<const float>(weight), columns, depth, digits, at<int8_t>(packed), at<float>(scale));
  });
  m.def("tower_layer_norm", &py_layer_norm);
  m.def("tower_linear", &py_linear);
  m.def("tower_mlp", &py_mlp);
  m.def("path_attention", &py_attention);
}
