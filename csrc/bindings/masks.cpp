// Masks: packing, areas and boxes, counts of pairs, distances.
#include "core/masks/masks.h"

#include <pybind11/stl.h>

#include <cstdint>
#include <optional>

#include "bindings/address.h"
#include "bindings/arguments.h"
#include "bindings/bind.h"

namespace {

// dense [n, height, width] bytes to words, area and box. Here and below, a function that reads dense masks returns
// whether each of their bytes is 0 or 1.
bool pack_masks(Address dense, int64_t n, int64_t height, int64_t width, int threads, Address words, Address area,
                Address box) {
  check_masks(n, height, width);
  return without_gil([&] {
    return dpad::pack_masks(at<const uint8_t>(dense), n, height, width, threads, at<uint64_t>(words), at<int64_t>(area),
                            at<dpad::PixelBox>(box)) <= 1;
  });
}

void unpack_masks(Address words, int64_t n, int64_t height, int64_t width, int threads, Address dense) {
  check_masks(n, height, width);
  without_gil([&] { dpad::unpack_masks(at<const uint64_t>(words), n, height, width, threads, at<uint8_t>(dense)); });
}

void measure_masks(Address words, int64_t n, int64_t height, int64_t width, Address area, Address box) {
  check_masks(n, height, width);
  without_gil([&] {
    const int64_t size = height * dpad::words_for(width);
    for (int64_t i = 0; i < n; ++i)
      dpad::measure(at<const uint64_t>(words) + i * size, height, width, at<int64_t>(area) + i,
                    at<dpad::PixelBox>(box) + i);
  });
}

// a, b [n, pixels] bytes; ignore 0, or ignore_step bytes from mask to mask.
bool dense_pair_counts(Address a, Address b, Address ignore, int64_t ignore_step, int64_t n, int64_t pixels,
                       int threads, Address intersection, Address uni) {
  check_range("the number of masks", n, 0, kMostItems);
  check_range("pixels", pixels, 0, dpad::kMaxPixels);
  return without_gil([&] {
    return dpad::dense_pair_counts(at<const uint8_t>(a), at<const uint8_t>(b), at<const uint8_t>(ignore), ignore_step,
                                   n, pixels, threads, at<int64_t>(intersection), at<int64_t>(uni)) <= 1;
  });
}

// Counts [n, m] of dense masks a [n, height, width] and b [m, height, width]. b is packed into packed_b, memory of the
// caller's.
bool dense_matrix_counts(Address a, int64_t n, Address b, const PackedArgs& packed_b, int64_t height, int64_t width,
                         int threads, Address intersection, Address uni) {
  const auto& [words, area, box, m] = packed_b;
  check_masks(n, height, width);
  const dpad::PackedView truth{at<uint64_t>(words), at<int64_t>(area), at<dpad::PixelBox>(box), m, height, width};
  const bool zeros_and_ones = pack_masks(b, m, height, width, threads, words, area, box);
  return without_gil([&] {
    return dpad::dense_matrix_counts(at<const uint8_t>(a), n, truth, threads, at<int64_t>(intersection),
                                     at<int64_t>(uni)) <= 1 &&
           zeros_and_ones;
  });
}

using Count = void (*)(const dpad::PackedView&, const dpad::PackedView&, const dpad::PackedView*, int, int64_t*,
                       int64_t*);

// `paired`: mask i of a with mask i of b, and not all of a with all of b.
template <Count function, bool paired>
void packed_counts(const PackedArgs& a, const PackedArgs& b, const std::optional<PackedArgs>& ignore, int64_t height,
                   int64_t width, int threads, Address intersection, Address uni) {
  const dpad::PackedView view_a = packed_masks(a, height, width), view_b = packed_masks(b, height, width);
  const std::optional<dpad::PackedView> ignored = packed_masks(ignore, height, width);
  if (paired) check_range("the number of masks of b", view_b.n, view_a.n, view_a.n);
  check_ignored(ignored, view_b.n);
  without_gil([&] {
    function(view_a, view_b, ignored ? &*ignored : nullptr, threads, at<int64_t>(intersection), at<int64_t>(uni));
  });
}

void iou_ratios(Address intersection, Address uni, int64_t n, double empty, Address out) {
  check_range("the number of counts", n, 0, INT64_MAX / 8);
  dpad::iou_ratios(at<const int64_t>(intersection), at<const int64_t>(uni), n, empty, at<double>(out));
}

bool inscribed_points(Address mask, int64_t height, int64_t width, Address points) {
  constexpr int64_t kLongestSide = int64_t{1} << 25;  // squared distances have exact roots
  check_range("height", height, 0, kLongestSide);
  check_range("width", width, 0, kLongestSide);
  return without_gil(
      [&] { return dpad::inscribed_points(at<const uint8_t>(mask), height, width, at<int64_t>(points)); });
}

}  // namespace

void bind_masks(pybind11::module_& m) {
  m.def("check_mask_size", &dpad::check_mask_size);
  m.def("pack_masks", &pack_masks);
  m.def("unpack_masks", &unpack_masks);
  m.def("measure_masks", &measure_masks);
  m.def("dense_pair_counts", &dense_pair_counts);
  m.def("dense_matrix_counts", &dense_matrix_counts);
  m.def("packed_pair_counts", &packed_counts<&dpad::packed_pair_counts, true>);
  m.def("packed_matrix_counts", &packed_counts<&dpad::packed_matrix_counts, false>);
  m.def("iou_ratios", &iou_ratios);
  m.def("inscribed_points", &inscribed_points);
}
