#include "bindings_tower.h"

#include <cstdint>
#include <stdexcept>
#include <string>

#include "core/tower.h"

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
  if (name == "quick_gelu") return dpad::Finish::quick_gelu;
  if (name == "add") return dpad::Finish::add;
  throw std::invalid_argument("finish is unknown here: " + name);
}

dpad::RowsProblem rows_problem(int64_t rows, int64_t depth, Address weight, Address bias, float eps, int threads) {
  return {rows, depth, at<const float>(weight), at<const float>(bias), eps, threads};
}

void py_block_rows16(int64_t rows, int64_t depth, Address weight, Address bias, float eps, int threads, Address x,
                     Address blocked, Address scale) {
  py::gil_scoped_release release;
  dpad::block_rows16(rows_problem(rows, depth, weight, bias, eps, threads), at<const float>(x), at<int16_t>(blocked),
                     at<float>(scale));
}

void py_block_rows32(int64_t rows, int64_t depth, Address weight, Address bias, float eps, int threads, Address x,
                     Address blocked) {
  py::gil_scoped_release release;
  dpad::block_rows32(rows_problem(rows, depth, weight, bias, eps, threads), at<const float>(x), at<float>(blocked));
}

void py_layer_norm(int64_t rows, int64_t depth, Address weight, Address bias, float eps, int threads, Address x,
                   Address out) {
  py::gil_scoped_release release;
  dpad::layer_norm(rows_problem(rows, depth, weight, bias, eps, threads), at<const float>(x), at<float>(out));
}

void py_linear16(int64_t rows, int64_t columns, int64_t depth, Address q, Address row_scale, Address packed,
                 Address scale, Address bias, const std::string& finish, int threads, Address out) {
  const dpad::LinearProblem problem{rows, columns, depth, at<const float>(bias), finish_named(finish), threads};
  py::gil_scoped_release release;
  dpad::linear16(problem, at<const int16_t>(q), at<const float>(row_scale), at<const int16_t>(packed),
                 at<const float>(scale), at<float>(out));
}

void py_linear32(int64_t rows, int64_t columns, int64_t depth, Address x, Address packed, Address bias,
                 const std::string& finish, int threads, Address out) {
  const dpad::LinearProblem problem{rows, columns, depth, at<const float>(bias), finish_named(finish), threads};
  py::gil_scoped_release release;
  dpad::linear32(problem, at<const float>(x), at<const float>(packed), at<float>(out));
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
  m.def("blocked_elements", &dpad::blocked_elements);
  m.def("pack16", [](Address weight, int64_t columns, int64_t depth, Address packed, Address scale) {
    py::gil_scoped_release release;
    dpad::pack16(at<const float>(weight), columns, depth, at<int16_t>(packed), at<float>(scale));
  });
  m.def("pack32", [](Address weight, int64_t columns, int64_t depth, Address packed) {
    py::gil_scoped_release release;
    dpad::pack32(at<const float>(weight), columns, depth, at<float>(packed));
  });
  m.def("block_rows16", &py_block_rows16);
  m.def("block_rows32", &py_block_rows32);
  m.def("tower_layer_norm", &py_layer_norm);
  m.def("linear16", &py_linear16);
  m.def("linear32", &py_linear32);
  m.def("path_attention", &py_attention);
}
