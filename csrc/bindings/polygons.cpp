// Polygons: read from the callers' forms (arrays [n, 2], flat lists x0, y0, x1, y1, ..., lists of pairs, and lists of
// such rings), drawn, and counted against masks. They are read in C++ because reading 128 polygons in Python takes
// longer than drawing them.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/address.h"
#include "bindings/arguments.h"
#include "bindings/bind.h"

namespace py = pybind11;

namespace {

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast | kAligned>;

struct Polygons {
  std::vector<double> vertices;
  std::vector<int64_t> ring_starts{0}, object_starts{0};
};

bool is_number(py::handle item) {
  if (PyFloat_Check(item.ptr()) || PyLong_Check(item.ptr())) return true;
  if (PyList_Check(item.ptr()) || PyTuple_Check(item.ptr())) return false;
  return PyNumber_Check(item.ptr()) && (!py::hasattr(item, "ndim") || item.attr("ndim").cast<int>() == 0);
}

bool is_list(py::handle item) { return PyList_Check(item.ptr()) || PyTuple_Check(item.ptr()); }

std::string place(size_t object, size_t ring) {
  return "polygons[" + std::to_string(object) + "], ring " + std::to_string(ring);
}

Doubles as_array(py::handle ring, size_t object, size_t number) {
  Doubles array = Doubles::ensure(ring);
  if (!array && py::hasattr(ring, "detach")) {  // tensors with a gradient, and of types that NumPy lacks
    PyErr_Clear();
    array = Doubles::ensure(ring.attr("detach")().attr("double")());
  }
  if (!array) {
    PyErr_Clear();
    throw py::value_error(place(object, number) + " does not hold numbers");
  }
  return array;
}

template <typename T>
bool copy_as(const py::array& array, std::vector<double>& out) {
  if (!array.dtype().is(py::dtype::of<T>())) return false;
  const T* const begin = static_cast<const T*>(array.data());
  out.insert(out.end(), begin, begin + array.size());
  return true;
}

// Copies arrays [n, 2] of the usual types without NumPy, whose conversion costs more than drawing a small polygon.
bool add_array(Polygons& out, py::handle ring) {
  if (!py::isinstance<py::array>(ring)) return false;
  const auto array = py::reinterpret_borrow<py::array>(ring);
  constexpr int kPlain = py::array::c_style | kAligned;
  if (array.ndim() != 2 || array.shape(1) != 2 || (array.flags() & kPlain) != kPlain) return false;
  if (!copy_as<double>(array, out.vertices) && !copy_as<float>(array, out.vertices) &&
      !copy_as<int32_t>(array, out.vertices) && !copy_as<int64_t>(array, out.vertices))
    return false;
  out.ring_starts.push_back(static_cast<int64_t>(out.vertices.size() / 2));
  return true;
}

void add_ring(Polygons& out, py::handle ring, size_t object, size_t number) {
  if (add_array(out, ring)) return;
  const Doubles array = as_array(ring, object, number);
  const bool pairs = array.ndim() == 2 && array.shape(1) == 2;
  const bool flat = array.ndim() == 1 && array.shape(0) % 2 == 0;
  if (!pairs && !flat && array.size() != 0)
    throw py::value_error(place(object, number) + " must be [n, 2] or flat [2 n], got " +
                          py::repr(array.attr("shape")).cast<std::string>());
  out.vertices.insert(out.vertices.end(), array.data(), array.data() + array.size());
  out.ring_starts.push_back(static_cast<int64_t>(out.vertices.size() / 2));
}

// A list is one ring where it starts with a number or with a pair of numbers; else it holds rings.
bool is_ring(py::sequence list) {
  if (list.size() == 0) return true;
  const py::object first = list[0];
  if (is_number(first)) return true;
  if (is_list(first)) return py::len(first) == 2 && is_number(py::object(py::sequence(first)[0]));
  return py::hasattr(first, "ndim") && first.attr("ndim").cast<int>() == 1 && py::len(first) == 2;
}

void add_object(Polygons& out, py::handle object, size_t number) {
  if (!is_list(object) || is_ring(py::reinterpret_borrow<py::sequence>(object))) {
    add_ring(out, object, number, 0);
  } else {
    size_t ring = 0;
    for (py::handle item : object) add_ring(out, item, number, ring++);
  }
  out.object_starts.push_back(static_cast<int64_t>(out.ring_starts.size() - 1));
}

// Items are held while they are read: reading may run code of theirs, which may drop them from their list.
Polygons gather(py::sequence objects) {
  Polygons out;
  size_t numbers = 0;
  for (const py::object object : objects)
    if (py::isinstance<py::array>(object)) numbers += static_cast<size_t>(py::cast<py::array>(object).size());
  out.vertices.reserve(numbers);
  size_t number = 0;
  for (const py::object object : objects) add_object(out, object, number++);
  return out;
}

int64_t count(const Polygons& polygons) { return static_cast<int64_t>(polygons.object_starts.size() - 1); }

PolygonArgs args(const Polygons& polygons) {
  const auto address_of = [](const auto& values) { return reinterpret_cast<Address>(values.data()); };
  return {address_of(polygons.vertices),      static_cast<int64_t>(polygons.vertices.size() / 2),
          address_of(polygons.ring_starts),   static_cast<int64_t>(polygons.ring_starts.size() - 1),
          address_of(polygons.object_starts), count(polygons)};
}

// Arrays over the vectors' own memory, which lives as long as one of them.
py::tuple arrays(const py::object& self) {
  const auto& polygons = self.cast<const Polygons&>();
  const auto shared = [&](const std::vector<int64_t>& values) {
    return py::array_t<int64_t>(static_cast<py::ssize_t>(values.size()), values.data(), self);
  };
  const auto vertices = static_cast<py::ssize_t>(polygons.vertices.size() / 2);
  return py::make_tuple(py::array_t<double>({vertices, py::ssize_t{2}}, polygons.vertices.data(), self),
                        shared(polygons.ring_starts), shared(polygons.object_starts));
}

// zeros: the output is all 0 already.
void draw_polygons(const PolygonArgs& args, int64_t height, int64_t width, const std::string& rule, int threads,
                   bool zeros, Address words, Address area, Address box) {
  check_masks(std::get<5>(args), height, width);
  const dpad::PolygonRule chosen = named("rule", rule, kPolygonRules);
  without_gil([&] {
    dpad::draw_polygons(checked_polygons(args), height, width, chosen, threads, zeros, at<uint64_t>(words),
                        at<int64_t>(area), at<dpad::PixelBox>(box));
  });
}

void draw_polygons_dense(const PolygonArgs& args, int64_t height, int64_t width, const std::string& rule, int threads,
                         bool zeros, Address dense) {
  check_masks(std::get<5>(args), height, width);
  const dpad::PolygonRule chosen = named("rule", rule, kPolygonRules);
  without_gil([&] {
    dpad::draw_polygons_dense(checked_polygons(args), height, width, chosen, threads, zeros, at<uint8_t>(dense));
  });
}

void check_mask_index(const int64_t* index, int64_t n, int64_t masks) {
  for (int64_t i = 0; i < n; ++i)
    if (index[i] < 0 || index[i] >= masks)
      throw std::invalid_argument("mask_index[" + std::to_string(i) + "] is " + std::to_string(index[i]) +
                                  ", expected 0 to " + std::to_string(masks - 1));
}

// Counts of object i against mask index[i], or mask i where index is 0.
void polygon_counts(const PolygonArgs& args, const std::string& rule, const PackedArgs& masks, int64_t height,
                    int64_t width, Address index, const std::optional<PackedArgs>& ignore, int threads,
                    Address intersection, Address uni) {
  const dpad::PolygonRule chosen = named("rule", rule, kPolygonRules);
  const dpad::PackedView truth = packed_masks(masks, height, width);
  const std::optional<dpad::PackedView> ignored = packed_masks(ignore, height, width);
  check_ignored(ignored, truth.n);
  if (index == 0) check_range("the number of polygons", std::get<5>(args), 0, truth.n);
  without_gil([&] {
    const dpad::PolygonBatch batch = checked_polygons(args);
    if (index != 0) check_mask_index(at<const int64_t>(index), batch.n, truth.n);
    dpad::polygon_counts(batch, chosen, truth, at<const int64_t>(index), ignored ? &*ignored : nullptr, threads,
                         at<int64_t>(intersection), at<int64_t>(uni));
  });
}

}  // namespace

void bind_polygons(py::module_& m) {
  py::class_<Polygons>(m, "Polygons")
      .def(py::init(&gather), py::arg("objects"))
      .def("__len__", &count)
      .def_property_readonly("args", &args)
      .def("arrays", &arrays);
  m.def("check_polygons", [](const PolygonArgs& args) { checked_polygons(args); });
  m.def("draw_polygons", &draw_polygons);
  m.def("draw_polygons_dense", &draw_polygons_dense);
  m.def("polygon_counts", &polygon_counts);
}
