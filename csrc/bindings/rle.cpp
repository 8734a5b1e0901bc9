// COCO run-length dictionaries {"size": [height, width], "counts": bytes} in and out.
#include "core/masks/rle.h"

#include <pybind11/numpy.h>

#include <cmath>
#include <cstdint>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/address.h"
#include "bindings/arguments.h"
#include "bindings/bind.h"
#include "core/masks/loops.h"
#include "core/masks/polygons.h"

namespace py = pybind11;

namespace {

// The content of one dictionary. The objects are kept alive, so that the runs can be read without the GIL.
struct Source {
  py::object owner;
  const char* text = nullptr;
  size_t length = 0;
  std::vector<int64_t> numbers;  // uncompressed counts
  int64_t height = 0, width = 0;
};

int64_t side(py::handle size, int i, const dpad::ItemName& name) {
  const py::object item = py::reinterpret_borrow<py::sequence>(size)[static_cast<size_t>(i)];
  long long value = -1;
  if (PyLong_Check(item.ptr()) || PyIndex_Check(item.ptr())) value = PyLong_AsLongLong(item.ptr());
  // A whole float such as 480.0, as JSON may hold it.
  const double real = PyFloat_Check(item.ptr()) ? PyFloat_AS_DOUBLE(item.ptr()) : -1;
  if (real >= 0 && real < 1e15 && real == std::floor(real)) value = static_cast<long long>(real);
  if (PyErr_Occurred()) PyErr_Clear();
  if (value < 0)
    throw py::value_error(name.text() + ": size[" + std::to_string(i) + "] must be a whole number from 0 up, got " +
                          py::repr(item).cast<std::string>());
  return value;
}

// The item of a dictionary, held, or null. `key` is made once and lives as long as the process.
py::object lookup(py::handle item, PyObject* key) {
  return py::reinterpret_borrow<py::object>(PyDict_Check(item.ptr()) ? PyDict_GetItem(item.ptr(), key) : nullptr);
}

template <typename T>
py::array_t<T> as(const py::array& array) {
  return py::array_t<T, py::array::c_style | py::array::forcecast | kAligned>(array);
}

// Uncompressed counts: a list, a tuple or an array. Other types are refused although NumPy would convert them: the
// characters of a bytearray would pass for runs.
std::vector<int64_t> whole_numbers(py::handle counts, const dpad::ItemName& name) {
  const bool listed = PyList_Check(counts.ptr()) || PyTuple_Check(counts.ptr()) || py::isinstance<py::array>(counts);
  const py::array array = listed ? py::array::ensure(counts) : py::array();
  if (!listed || !array) PyErr_Clear();
  const char kind = listed && array && array.ndim() == 1 ? array.dtype().kind() : 'O';
  bool all_whole = kind == 'i' || kind == 'u' || kind == 'b' || kind == 'f';
  if (kind == 'f') {
    const auto values = as<double>(array);
    for (py::ssize_t i = 0; i < values.size(); ++i) {
      const double value = values.data()[i];
      all_whole = all_whole && value == std::floor(value) && std::fabs(value) < 1e15;
    }
  }
  if (!all_whole)
    throw py::value_error(name.text() + ": counts must be bytes, a string or a list of whole numbers, got " +
                          std::string(Py_TYPE(counts.ptr())->tp_name));
  const auto numbers = as<int64_t>(array);
  return {numbers.data(), numbers.data() + numbers.size()};
}

Source read(py::handle item, const dpad::ItemName& name) {
  static PyObject* const kCounts = PyUnicode_InternFromString("counts");
  static PyObject* const kSize = PyUnicode_InternFromString("size");
  Source out;
  out.owner = lookup(item, kCounts);
  const py::object size = lookup(item, kSize);
  PyObject* const counts = out.owner.ptr();
  if (!out.owner || !size)
    throw py::value_error(name.text() + " must be a dictionary with size and counts, got " +
                          std::string(Py_TYPE(item.ptr())->tp_name));
  if (!PySequence_Check(size.ptr()) || PySequence_Size(size.ptr()) != 2)
    throw py::value_error(name.text() + ": size must be [height, width], got " + py::repr(size).cast<std::string>());
  out.height = side(size, 0, name);
  out.width = side(size, 1, name);
  if (!dpad::mask_size_fits(out.height, out.width))
    dpad::check_mask_size((name.text() + ": size").c_str(), out.height, out.width);
  if (PyBytes_Check(counts)) {
    out.text = PyBytes_AS_STRING(counts);
    out.length = static_cast<size_t>(PyBytes_GET_SIZE(counts));
  } else if (PyUnicode_Check(counts)) {
    Py_ssize_t length = 0;
    out.text = PyUnicode_AsUTF8AndSize(counts, &length);
    if (out.text == nullptr) {
      PyErr_Clear();
      throw py::value_error(name.text() + ": counts is not valid text");
    }
    out.length = static_cast<size_t>(length);
  } else {
    out.numbers = whole_numbers(counts, name);
  }
  return out;
}

std::vector<Source> read_all(py::sequence items, const std::string& name) {
  std::vector<Source> out;
  out.reserve(items.size());
  int64_t i = 0;
  for (const py::object item : items) out.push_back(read(item, {name.c_str(), i++}));
  return out;
}

dpad::Rle decode(const Source& source, const dpad::ItemName& name) {
  if (source.text != nullptr)
    return dpad::rle_from_string(name, source.text, source.length, source.height, source.width);
  return dpad::rle_from_counts(name, source.numbers.data(), source.numbers.size(), source.height, source.width);
}

// Decodes each source and calls use(i, rle), in parallel. Throws for the first bad source.
template <typename Use>
void for_rles(const std::vector<Source>& sources, const std::string& name, int threads, Use&& use) {
  std::mutex guard;
  size_t bad = sources.size();
  std::string message;
  without_gil([&] {
    dpad::for_masks(static_cast<int64_t>(sources.size()), 1 << 13, threads, [&](int64_t begin, int64_t end) {
      for (size_t i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) try {
          use(i, decode(sources[i], {name.c_str(), static_cast<int64_t>(i)}));
        } catch (const std::invalid_argument& error) {
          const std::lock_guard<std::mutex> lock(guard);
          if (i < bad) bad = i, message = error.what();
        }
    });
  });
  if (bad < sources.size()) throw std::invalid_argument(message);
}

std::vector<dpad::Rle> decode_all(const std::vector<Source>& sources, const std::string& name, int threads) {
  std::vector<dpad::Rle> rles(sources.size());
  for_rles(sources, name, threads, [&](size_t i, dpad::Rle&& rle) { rles[i] = std::move(rle); });
  return rles;
}

py::dict to_dict(const dpad::Rle& rle) {
  py::list size;
  size.append(rle.height);
  size.append(rle.width);
  py::dict out;
  out["size"] = size;
  out["counts"] = py::bytes(dpad::rle_to_string(rle));
  return out;
}

py::list to_dicts(const std::vector<dpad::Rle>& rles) {
  py::list out;
  for (const dpad::Rle& rle : rles) out.append(to_dict(rle));
  return out;
}

// The run lengths that make(i) gives for 0..n, made in parallel.
template <typename Make>
py::list make_rles(int64_t n, int threads, Make&& make) {
  std::vector<dpad::Rle> rles(static_cast<size_t>(n));
  without_gil([&] {
    dpad::for_masks(n, 1 << 16, threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) rles[static_cast<size_t>(i)] = make(i);
    });
  });
  return to_dicts(rles);
}

void same_sizes(const std::vector<Source>& sources, const std::string& name, int64_t height, int64_t width) {
  for (size_t i = 0; i < sources.size(); ++i)
    if (sources[i].height != height || sources[i].width != width)
      throw py::value_error(name + "[" + std::to_string(i) + "] has size " + std::to_string(sources[i].height) + " x " +
                            std::to_string(sources[i].width) + ", expected " + std::to_string(height) + " x " +
                            std::to_string(width));
}

py::tuple rle_sizes(py::sequence items, const std::string& name) {
  const std::vector<Source> sources = read_all(items, name);
  if (sources.empty()) throw py::value_error(name + " must not be empty");
  same_sizes(sources, name, sources[0].height, sources[0].width);
  return py::make_tuple(sources[0].height, sources[0].width);
}

void rle_decode(py::sequence items, int threads, Address columns, int64_t height, int64_t width) {
  const std::vector<Source> sources = read_all(items, "rleObjs");
  same_sizes(sources, "rleObjs", height, width);
  for_rles(sources, "rleObjs", threads, [&](size_t i, dpad::Rle&& rle) {
    dpad::rle_to_columns(rle, at<uint8_t>(columns) + static_cast<int64_t>(i) * height * width);
  });
}

void rle_words(py::sequence items, int64_t height, int64_t width, int threads, Address words, Address area,
               Address box) {
  const std::vector<Source> sources = read_all(items, "rles");
  same_sizes(sources, "rles", height, width);
  check_masks(static_cast<int64_t>(sources.size()), height, width);
  const int64_t size = height * dpad::words_for(width);
  for_rles(sources, "rles", threads, [&](size_t i, dpad::Rle&& rle) {
    dpad::rle_to_words(rle, at<uint64_t>(words) + static_cast<int64_t>(i) * size, at<int64_t>(area) + i,
                       at<dpad::PixelBox>(box) + i);
  });
}

void rle_measure(py::sequence items, int threads, Address area, Address box) {
  for_rles(read_all(items, "rleObjs"), "rleObjs", threads, [&](size_t i, dpad::Rle&& rle) {
    at<int64_t>(area)[i] = dpad::rle_area(rle);
    at<dpad::PixelBox>(box)[i] = dpad::rle_box(rle);
  });
}

// IoU [m, n] in Fortran order. Detections are unpacked one at a time, so that only the truths' bits are kept.
void rle_iou(py::sequence detections, py::sequence truths, int threads, Address crowd, Address out) {
  const std::vector<Source> sources = read_all(detections, "dt"), of_truths = read_all(truths, "gt");
  std::vector<dpad::RleTruth> gt(of_truths.size());
  for_rles(of_truths, "gt", threads, [&](size_t i, dpad::Rle&& rle) {
    gt[i] = {dpad::CompactMask(rle), rle.height, rle.width, at<const uint8_t>(crowd)[i] != 0};
  });
  const auto m = static_cast<int64_t>(sources.size());
  for_rles(sources, "dt", threads, [&](size_t d, dpad::Rle&& rle) { dpad::rle_iou(rle, gt, m, at<double>(out) + d); });
}

py::dict rle_merge(py::sequence items, bool intersect, int threads) {
  const std::vector<Source> sources = read_all(items, "rleObjs");
  if (sources.empty()) return to_dict({});
  same_sizes(sources, "rleObjs", sources[0].height, sources[0].width);
  return to_dict(dpad::rle_merge(decode_all(sources, "rleObjs", threads), intersect));
}

py::list polygons_to_rle(const PolygonArgs& args, int64_t height, int64_t width, const std::string& rule, int threads) {
  check_masks(std::get<5>(args), height, width);
  const dpad::PolygonRule chosen = named("rule", rule, kPolygonRules);
  return to_dicts(
      without_gil([&] { return dpad::polygons_to_rle(checked_polygons(args), height, width, chosen, threads); }));
}

py::list rle_canonical(py::sequence items, const std::string& name) {
  return to_dicts(decode_all(read_all(items, name), name, 1));
}

py::list rle_encode(Address columns, int64_t n, int64_t height, int64_t width, int threads) {
  check_masks(n, height, width);
  return make_rles(n, threads, [&](int64_t i) {
    return dpad::rle_from_columns(at<const uint8_t>(columns) + i * height * width, height, width);
  });
}

py::list rle_from_words(Address words, Address box, int64_t n, int64_t height, int64_t width, int threads) {
  packed_masks(PackedArgs{words, 0, box, n}, height, width);  // checks the boxes
  const int64_t size = height * dpad::words_for(width);
  return make_rles(n, threads, [&](int64_t i) {
    return dpad::rle_from_words(at<const uint64_t>(words) + i * size, height, width, at<const dpad::PixelBox>(box)[i]);
  });
}

}  // namespace

void bind_rle(py::module_& m) {
  m.def("rle_sizes", &rle_sizes);
  m.def("rle_decode", &rle_decode);
  m.def("rle_words", &rle_words);
  m.def("rle_measure", &rle_measure);
  m.def("rle_iou", &rle_iou);
  m.def("rle_merge", &rle_merge);
  m.def("rle_canonical", &rle_canonical);
  m.def("rle_encode", &rle_encode);
  m.def("rle_from_words", &rle_from_words);
  m.def("polygons_to_rle", &polygons_to_rle);
}
