// The extension dpad_fast._C.
#include "bindings/bind.h"
#include "core/tower/tower.h"
#include "simd/choose.h"
#include "simd/crops/table.h"
#include "simd/masks/table.h"

namespace py = pybind11;

namespace {

py::dict build_info() {
  py::dict info;
#if defined(__clang__)
  info["compiler"] = "clang " __clang_version__;
#elif defined(__GNUC__)
  info["compiler"] = "gcc " __VERSION__;
#endif
#ifdef DPAD_FAST_WITH_CUDA
  info["CUDA kernels"] = "built by nvcc " DPAD_FAST_WITH_CUDA;
#else
  info["CUDA kernels"] = "not built";
#endif
#ifdef __SANITIZE_ADDRESS__
  info["sanitizers"] = "on";
#endif
  return info;
}

// The instruction set that each group of ops uses in this process. ValueError where DPAD_FAST_SIMD names none.
py::dict simd_report() {
  py::dict report;
  report["crops"] = dpad::simd_level_name(dpad::crop_table().level);
  report["masks"] = dpad::simd_level_name(dpad::mask_table().level);
  report["tower"] = dpad::simd_level_name(dpad::tower_level());
  return report;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "C++ implementations behind dpad_fast.ops; call those, not this.";
  m.def("build_info", &build_info);
  m.def("simd_report", &simd_report);
  bind_crops(m);
  bind_cuda(m);
  bind_masks(m);
  bind_memory(m);
  bind_polygons(m);
  bind_rewards(m);
  bind_rle(m);
  bind_texts(m);
  bind_tower(m);
}
