#include "bindings/bind.h"

#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>

#include "core/masks/masks.h"
#include "core/masks/polygons.h"

namespace py = pybind11;

namespace {

using Address = std::uintptr_t;

template <typename T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

// (words, area, box, n), as dpad_fast.ops hands over a PackedMasks.
using PackedArgs = std::tuple<Address, Address, Address, int64_t>;

// Boxes say which words are read, so they are checked even though dpad_fast.ops made them.
dpad::PackedView packed(const PackedArgs& args, int64_t height, int64_t width) {
  const auto [words, area, box, n] = args;
  const dpad::PackedView view{
      at<const uint64_t>(words), at<const int64_t>(area), at<const dpad::PixelBox>(box), n, height, width};
  for (int64_t i = 0; i < n; ++i) {
    const dpad::PixelBox& b = view.box[i];
    if (b.x1 < 0 || b.y1 < 0 || b.x1 > b.x2 || b.y1 > b.y2 || b.x2 > width || b.y2 > height)
      throw std::invalid_argument("box[" + std::to_string(i) + "] does not lie in the mask");
  }
  return view;
}

using Count = void (*)(const dpad::PackedView&, const dpad::PackedView&, const dpad::PackedView*, int, int64_t*,
                       int64_t*);

void count(Count function, const PackedArgs& a, const PackedArgs& b, const std::optional<PackedArgs>& ignore,
           int64_t height, int64_t width, int threads, Address intersection, Address uni) {
  const dpad::PackedView view_a = packed(a, height, width), view_b = packed(b, height, width);
  std::optional<dpad::PackedView> skip;
  if (ignore) skip = packed(*ignore, height, width);
  py::gil_scoped_release release;
  function(view_a, view_b, skip ? &*skip : nullptr, threads, at<int64_t>(intersection), at<int64_t>(uni));
}

dpad::PolygonRule rule_named(const std::string& name) {
  if (name == "coco") return dpad::PolygonRule::coco;
  if (name == "opencv") return dpad::PolygonRule::opencv;
  if (name == "center") return dpad::PolygonRule::center;
  throw std::invalid_argument("rule must be one of coco, opencv, center, got " + name);
}

dpad::PolygonBatch polygons(const PolygonArgs& args) {
  const auto [vertices, vertex_count, rings, ring_count, objects, n] = args;
  const dpad::PolygonBatch batch{at<const double>(vertices), at<const int64_t>(rings), at<const int64_t>(objects), n};
  dpad::check_polygons(batch, vertex_count, ring_count);
  return batch;
}

// zeros: the output is all 0 already.
void py_draw_polygons(const PolygonArgs& args, int64_t height, int64_t width, const std::string& rule, int threads,
                      bool zeros, Address words, Address area, Address box) {
  const dpad::PolygonRule chosen = rule_named(rule);
  py::gil_scoped_release release;
  dpad::draw_polygons(polygons(args), height, width, chosen, threads, zeros, at<uint64_t>(words), at<int64_t>(area),
                      at<dpad::PixelBox>(box));
}

void py_draw_polygons_dense(const PolygonArgs& args, int64_t height, int64_t width, const std::string& rule,
                            int threads, bool zeros, Address dense) {
  const dpad::PolygonRule chosen = rule_named(rule);
  py::gil_scoped_release release;
  dpad::draw_polygons_dense(polygons(args), height, width, chosen, threads, zeros, at<uint8_t>(dense));
}

void py_polygon_counts(const PolygonArgs& args, const std::string& rule, const PackedArgs& masks, int64_t height,
                       int64_t width, Address index, const std::optional<PackedArgs>& ignore, int threads,
                       Address intersection, Address uni) {
  const dpad::PolygonRule chosen = rule_named(rule);
  const dpad::PackedView truth = packed(masks, height, width);
  std::optional<dpad::PackedView> skip;
  if (ignore) skip = packed(*ignore, height, width);
  py::gil_scoped_release release;
  const dpad::PolygonBatch batch = polygons(args);
  const int64_t* which = at<const int64_t>(index);
  for (int64_t i = 0; which != nullptr && i < batch.n; ++i)
    if (which[i] < 0 || which[i] >= truth.n)
      throw std::invalid_argument("mask_index[" + std::to_string(i) + "] is " + std::to_string(which[i]) +
                                  ", expected 0 to " + std::to_string(truth.n - 1));
  dpad::polygon_counts(batch, chosen, truth, which, skip ? &*skip : nullptr, threads, at<int64_t>(intersection),
                       at<int64_t>(uni));
}

}  // namespace

void bind_masks(py::module_& m) {
  m.def("mask_kernels", [] { return dpad::mask_kernels().name; });
  m.def("check_mask_size", &dpad::check_mask_size);
  m.def("pack_masks", [](Address dense, int64_t n, int64_t height, int64_t width, int threads, Address words,
                         Address area, Address box) {
    py::gil_scoped_release release;
    dpad::pack_masks(at<const uint8_t>(dense), n, height, width, threads, at<uint64_t>(words), at<int64_t>(area),
                     at<dpad::PixelBox>(box));
  });
  m.def("unpack_masks", [](Address words, int64_t n, int64_t height, int64_t width, int threads, Address dense) {
    py::gil_scoped_release release;
    dpad::unpack_masks(at<const uint64_t>(words), n, height, width, threads, at<uint8_t>(dense));
  });
  m.def("measure_masks", [](Address words, int64_t n, int64_t height, int64_t width, Address area, Address box) {
    py::gil_scoped_release release;
    const int64_t size = height * dpad::words_for(width);
    for (int64_t i = 0; i < n; ++i)
      dpad::measure(at<const uint64_t>(words) + i * size, height, width, at<int64_t>(area) + i,
                    at<dpad::PixelBox>(box) + i);
  });
  m.def("dense_pair_counts", [](Address a, Address b, Address ignore, int64_t ignore_step, int64_t n, int64_t pixels,
                                int threads, Address intersection, Address uni) {
    py::gil_scoped_release release;
    dpad::dense_pair_counts(at<const uint8_t>(a), at<const uint8_t>(b), at<const uint8_t>(ignore), ignore_step, n,
                            pixels, threads, at<int64_t>(intersection), at<int64_t>(uni));
  });
  // Memory for the packed b comes from the caller.
  m.def("dense_matrix_iou", [](Address a, int64_t n, Address b, const PackedArgs& room, int64_t height, int64_t width,
                               double empty, int threads, Address out) {
    const auto [words, area, box, count] = room;
    py::gil_scoped_release release;
    dpad::pack_masks(at<const uint8_t>(b), count, height, width, threads, at<uint64_t>(words), at<int64_t>(area),
                     at<dpad::PixelBox>(box));
    const dpad::PackedView truth{at<uint64_t>(words), at<int64_t>(area), at<dpad::PixelBox>(box), count, height, width};
    dpad::dense_matrix_iou(at<const uint8_t>(a), n, truth, empty, threads, at<double>(out));
  });
  m.def("packed_pair_counts", [](const PackedArgs& a, const PackedArgs& b, const std::optional<PackedArgs>& ignore,
                                 int64_t height, int64_t width, int threads, Address intersection, Address uni) {
    count(&dpad::packed_pair_counts, a, b, ignore, height, width, threads, intersection, uni);
  });
  m.def("packed_matrix_counts", [](const PackedArgs& a, const PackedArgs& b, const std::optional<PackedArgs>& ignore,
                                   int64_t height, int64_t width, int threads, Address intersection, Address uni) {
    count(&dpad::packed_matrix_counts, a, b, ignore, height, width, threads, intersection, uni);
  });
  m.def("iou_ratios", [](Address intersection, Address uni, int64_t n, double empty, Address out) {
    dpad::iou_ratios(at<const int64_t>(intersection), at<const int64_t>(uni), n, empty, at<double>(out));
  });
  m.def("distance_squared", [](Address mask, int64_t height, int64_t width, Address out) {
    py::gil_scoped_release release;
    dpad::distance_squared(at<const uint8_t>(mask), height, width, at<int64_t>(out));
  });
  m.def("check_polygons", [](const PolygonArgs& args) { polygons(args); });
  m.def("draw_polygons", &py_draw_polygons);
  m.def("draw_polygons_dense", &py_draw_polygons_dense);
  m.def("polygon_counts", &py_polygon_counts);
}
