// The launchers of csrc/cuda, where they were built. A stream's handle crosses as an integer like an address; kernels
// are only queued here, so the GIL is kept.
#include "bindings/bind.h"

#ifdef DPAD_FAST_WITH_CUDA

#include <pybind11/stl.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <tuple>

#include "bindings/address.h"
#include "bindings/arguments.h"
#include "cuda/launch.h"

namespace py = pybind11;

namespace {

using StreamArgs = std::tuple<int, Address>;  // device, cudaStream_t

DpadStream stream(const StreamArgs& args) { return {std::get<0>(args), at<void>(std::get<1>(args))}; }

// `rule` must outlive the result. Vertices are not checked here, because that would wait for the GPU. The kernel draws
// an object with a bad vertex as empty.
DpadPolygons polygons(const PolygonArgs& args, const std::string& rule) {
  check_counts(args);
  const auto [vertices, vertex_count, rings, ring_count, objects, n] = args;
  return {at<const double>(vertices),
          at<const int64_t>(rings),
          at<const int64_t>(objects),
          vertex_count,
          ring_count,
          n,
          rule.c_str()};
}

void check(const char* name, const char* error) {
  if (error != nullptr) throw std::runtime_error(std::string(name) + " could not be launched: CUDA says: " + error);
}

// Counts of n pairs of masks of `size` bytes or words each.
void check_pairs(int64_t n, int64_t size, int64_t ignore_step) {
  check_range("the number of masks", n, 0, kMostItems);
  check_range("the size of masks", size, 0, dpad::kMaxPixels);
  if (ignore_step != 0) check_range("the step of ignore", ignore_step, size, size);
}

void bind_mask_kernels(py::module_& module) {
  module.def("cuda_pack", [](Address dense, int64_t n, int64_t height, int64_t width, Address words, Address area,
                             Address box, const StreamArgs& on) {
    check_masks(n, height, width);
    check("mask_pack", dpad_cuda_pack(at<const uint8_t>(dense), n, height, width, at<uint64_t>(words),
                                      at<int64_t>(area), at<int64_t>(box), stream(on)));
  });
  module.def("cuda_unpack", [](Address words, int64_t n, int64_t height, int64_t width, Address dense,
                               const StreamArgs& on) {
    check_masks(n, height, width);
    check("mask_unpack", dpad_cuda_unpack(at<const uint64_t>(words), n, height, width, at<uint8_t>(dense), stream(on)));
  });
  module.def("cuda_measure", [](Address words, int64_t n, int64_t height, int64_t width, Address area, Address box,
                                const StreamArgs& on) {
    check_masks(n, height, width);
    check("mask_measure", dpad_cuda_measure(at<const uint64_t>(words), n, height, width, at<int64_t>(area),
                                            at<int64_t>(box), stream(on)));
  });
  module.def("cuda_dense_counts", [](Address a, Address b, Address ignore, int64_t ignore_step, int64_t n,
                                     int64_t pixels, Address intersection, Address uni, const StreamArgs& on) {
    check_pairs(n, pixels, ignore_step);
    check("mask_dense_counts",
          dpad_cuda_dense_counts(at<const uint8_t>(a), at<const uint8_t>(b), at<const uint8_t>(ignore), ignore_step, n,
                                 pixels, at<int64_t>(intersection), at<int64_t>(uni), stream(on)));
  });
  module.def("cuda_packed_counts", [](Address a, Address b, Address ignore, int64_t ignore_step, int64_t n,
                                      int64_t size, Address intersection, Address uni, const StreamArgs& on) {
    check_pairs(n, size, ignore_step);
    check("mask_packed_counts",
          dpad_cuda_packed_counts(at<const uint64_t>(a), at<const uint64_t>(b), at<const uint64_t>(ignore), ignore_step,
                                  n, size, at<int64_t>(intersection), at<int64_t>(uni), stream(on)));
  });
  module.def("cuda_matrix_counts",
             [](Address a, Address area_a, int64_t n, Address b, Address area_b, int64_t m, Address ignore,
                int64_t ignore_step, int64_t size, Address intersection, Address uni, const StreamArgs& on) {
               check_pairs(n, size, ignore_step);
               check_pairs(m, size, ignore_step);
               check("mask_packed_counts",
                     dpad_cuda_matrix_counts(at<const uint64_t>(a), at<const int64_t>(area_a), n, at<const uint64_t>(b),
                                             at<const int64_t>(area_b), m, at<const uint64_t>(ignore), ignore_step,
                                             size, at<int64_t>(intersection), at<int64_t>(uni), stream(on)));
             });
  module.def("cuda_ratio",
             [](Address intersection, Address uni, int64_t count, double empty, Address iou, const StreamArgs& on) {
               check_range("the number of counts", count, 0, INT64_MAX / 8);
               check("mask_ratio", dpad_cuda_ratio(at<const int64_t>(intersection), at<const int64_t>(uni), count,
                                                   empty, at<double>(iou), stream(on)));
             });
}

void bind_polygon_kernels(py::module_& module) {
  module.def("cuda_bands", [](int64_t height, int64_t width) {
    check_masks(0, height, width);
    return dpad_cuda_bands(height, width);
  });
  module.def("cuda_draw", [](const PolygonArgs& args, const std::string& rule, int64_t height, int64_t width,
                             Address words, Address area, Address box, Address scratch, const StreamArgs& on) {
    check_masks(std::get<5>(args), height, width);
    const DpadPolygons batch = polygons(args, rule);
    check("polygon_draw", dpad_cuda_draw(&batch, height, width, at<uint64_t>(words), at<int64_t>(area),
                                         at<int64_t>(box), at<int32_t>(scratch), stream(on)));
  });
  module.def("cuda_draw_dense", [](const PolygonArgs& args, const std::string& rule, int64_t height, int64_t width,
                                   Address dense, const StreamArgs& on) {
    check_masks(std::get<5>(args), height, width);
    const DpadPolygons batch = polygons(args, rule);
    check("polygon_draw_dense", dpad_cuda_draw_dense(&batch, height, width, at<uint8_t>(dense), stream(on)));
  });
  module.def("cuda_draw_counts", [](const PolygonArgs& args, const std::string& rule, int64_t height, int64_t width,
                                    Address masks, int64_t mask_count, Address index, Address ignore,
                                    int64_t ignore_step, Address intersection, Address uni, const StreamArgs& on) {
    check_masks(std::get<5>(args), height, width);
    const DpadPolygons batch = polygons(args, rule);
    check("polygon_counts", dpad_cuda_draw_counts(&batch, height, width, at<const uint64_t>(masks), mask_count,
                                                  at<const int64_t>(index), at<const uint64_t>(ignore), ignore_step,
                                                  at<int64_t>(intersection), at<int64_t>(uni), stream(on)));
  });
}

}  // namespace

void bind_cuda(py::module_& m) {
  bind_mask_kernels(m);
  bind_polygon_kernels(m);
}

#else

void bind_cuda(pybind11::module_&) {}

#endif
