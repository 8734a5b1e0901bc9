// Memory of core/base/output_pool.h as a Python object that lends it as a writable buffer and gives it back when it
// dies.
#include <cstdint>
#include <stdexcept>
#include <string>

#include "bindings/bind.h"
#include "core/base/output_pool.h"

namespace py = pybind11;

namespace {

class Output {
 public:
  explicit Output(int64_t bytes) : bytes_(checked(bytes)), block_(dpad::take_output(static_cast<size_t>(bytes_))) {}
  ~Output() { dpad::give_back_output(block_); }
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  py::buffer_info buffer() const { return py::buffer_info(block_.data, bytes_, false); }
  bool zeros() const { return block_.zeros; }

 private:
  static int64_t checked(int64_t bytes) {
    if (bytes < 1) throw std::invalid_argument("bytes must be at least 1, got " + std::to_string(bytes));
    return bytes;
  }

  int64_t bytes_;
  dpad::OutputBlock block_;
};

}  // namespace

void bind_memory(py::module_& m) {
  py::class_<Output>(m, "Output", py::buffer_protocol())
      .def(py::init<int64_t>())
      .def_property_readonly("zeros", &Output::zeros)
      .def_buffer([](const Output& output) { return output.buffer(); });
  m.def("output_memory", [] {
    const dpad::OutputMemory memory = dpad::output_memory();
    return py::make_tuple(memory.kept, memory.limit);
  });
  m.def("limit_output_memory", [](size_t limit) { without_gil([&] { dpad::limit_output_memory(limit); }); });
}
