// The only file that knows Python: it validates shapes and types, releases the GIL and calls csrc/core.
#include <pybind11/pybind11.h>

#include "core/cpu_features.h"

namespace py = pybind11;

PYBIND11_MODULE(_C, m) {
  m.doc() = "C++ implementations behind dpad_fast.ops; call those, not this.";
  m.def("simd_level", [] { return dpad::simd_level_name(dpad::best_simd_level()); });
}
