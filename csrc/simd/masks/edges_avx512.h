// Marks a ring's edges by OpenCV's rule with AVX-512. Eight edges are set up at once; then each edge is marked eight
// rows at a time. The marks go to two lists first, and one loop writes them to the plane: an edge has only a few rows,
// and a mispredicted branch at the end of each edge would cost as much as its rows.
#pragma once

#include "simd/masks/lanes_avx512.h"
#include "simd/masks/shared_inl.h"
#include "simd/masks/table.h"

namespace dpad {
namespace {

class EdgeMarker {
 public:
  explicit EdgeMarker(const EdgePlane& plane)
      : plane_(plane), row_steps_(_mm512_mullo_epi64(iota(), _mm512_set1_epi64(plane.words))) {}

  void ring(const double* xy, int64_t n) {
    __m512i before_x = _mm512_set1_epi64(static_cast<int64_t>(xy[2 * n - 2]));
    __m512i before_y = _mm512_set1_epi64(static_cast<int64_t>(xy[2 * n - 1]));
    const __m512i even = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0), one = _mm512_set1_epi64(1);
    for (int64_t i = 0; i < n; i += 8) {
      const int64_t edges = n - i < 8 ? n - i : 8;
      const auto lanes = static_cast<__mmask16>((1u << 2 * edges) - 1);
      const __m512d low = _mm512_maskz_loadu_pd(static_cast<__mmask8>(lanes), xy + 2 * i);
      const __m512d high = _mm512_maskz_loadu_pd(static_cast<__mmask8>(lanes >> 8), xy + 2 * i + 8);
      const __m512i x = _mm512_cvttpd_epi64(_mm512_permutex2var_pd(low, even, high));
      const __m512i y = _mm512_cvttpd_epi64(_mm512_permutex2var_pd(low, _mm512_or_si512(even, one), high));
      set_up(_mm512_alignr_epi64(x, before_x, 7), _mm512_alignr_epi64(y, before_y, 7), x, y);
      for (int64_t k = 0; k < edges; ++k) edge(k);
      before_x = x;
      before_y = y;
    }
    flush();
  }

 private:
  // Computes in each lane what LineRows and mark_edges_one_by_one compute for one edge.
  void set_up(__m512i x1, __m512i y1, __m512i x2, __m512i y2) {
    const __m512i zero = _mm512_setzero_si512(), one = _mm512_set1_epi64(1);
    const __mmask8 up = _mm512_cmpgt_epi64_mask(y1, y2);
    const __m512i above = _mm512_mask_mov_epi64(x1, up, x2), below = _mm512_mask_mov_epi64(x2, up, x1);
    const __m512i first = _mm512_min_epi64(x1, x2), last = _mm512_max_epi64(x1, x2);
    const __m512i rows = _mm512_abs_epi64(_mm512_sub_epi64(y2, y1)), dx = _mm512_sub_epi64(last, first);
    const __m512d height = _mm512_cvtepi64_pd(_mm512_max_epi64(rows, one));
    const __m512d inverse = _mm512_div_pd(_mm512_set1_pd(static_cast<double>(int64_t{1} << kBits)), height);
    const __m512i slope = _mm512_cvttpd_epi64(_mm512_mul_pd(_mm512_cvtepi64_pd(dx), inverse));
    const __m512i quarter = _mm512_cvttpd_epi64(_mm512_mul_pd(inverse, _mm512_set1_pd(.25)));
    const __m512i half = _mm512_mask_slli_epi64(_mm512_srai_epi64(slope, 1), _mm512_cmpeq_epi64_mask(rows, zero),
                                                _mm512_add_epi64(dx, one), kBits);
    const __mmask8 mirrored = _mm512_cmpgt_epi64_mask(above, below), steep = _mm512_cmpgt_epi64_mask(rows, dx);
    const __m512i start =
        _mm512_add_epi64(_mm512_slli_epi64(first, kBits), _mm512_maskz_mullo_epi64(mirrored, rows, slope));
    const __m512i nearest = _mm512_sub_epi64(_mm512_set1_epi64(int64_t{1} << (kBits - 1)), quarter);
    const __m512i beyond = _mm512_mask_mov_epi64(_mm512_add_epi64(half, quarter), steep, nearest);
    const __m512i within = _mm512_sub_epi64(_mm512_set1_epi64(int64_t{1} << kBits), _mm512_sub_epi64(half, quarter));
    const __m512d run = _mm512_cvtepi64_pd(_mm512_slli_epi64(_mm512_sub_epi64(below, above), kShift));
    const auto keep = [](int64_t* to, __m512i values) { _mm512_store_si512(to, values); };
    keep(rows_, rows);
    keep(first_, first);
    keep(last_, last);
    keep(step_, _mm512_mask_sub_epi64(slope, mirrored, zero, slope));
    keep(right_, _mm512_add_epi64(start, beyond));
    keep(left_, _mm512_add_epi64(start, _mm512_mask_mov_epi64(within, steep, nearest)));
    keep(slope_, _mm512_cvttpd_epi64(_mm512_div_pd(run, height)));
    keep(behind_, _mm512_slli_epi64(_mm512_add_epi64(above, one), kShift));
    const __m512i top = _mm512_sub_epi64(_mm512_min_epi64(y1, y2), _mm512_set1_epi64(plane_.top));
    keep(row_,
         _mm512_sub_epi64(_mm512_mullo_epi64(top, _mm512_set1_epi64(plane_.words)), _mm512_set1_epi64(plane_.left)));
  }

  void edge(int64_t k) {
    const __m512i ones = _mm512_set1_epi64(-1), first = _mm512_set1_epi64(first_[k]);
    const __m512i last = _mm512_set1_epi64(last_[k]);
    const __m512i steps = _mm512_mullo_epi64(iota(), _mm512_set1_epi64(step_[k]));
    const __m512i slopes = _mm512_mullo_epi64(iota(), _mm512_set1_epi64(slope_[k]));
    int64_t left = left_[k], right = right_[k], behind = behind_[k], row = row_[k];
    for (int64_t rows = rows_[k]; rows >= 0; rows -= 8) {
      if (sets_.n > kRoom || flips_.n > kRoom) flush();
      const int64_t lines = rows >= 7 ? 8 : rows + 1;  // the last row has a line's end and no flip
      const __m512i at = _mm512_add_epi64(_mm512_set1_epi64(row), row_steps_);
      const __m512i l =
          _mm512_max_epi64(_mm512_srai_epi64(_mm512_add_epi64(_mm512_set1_epi64(left), steps), kBits), first);
      const __m512i r =
          _mm512_min_epi64(_mm512_srai_epi64(_mm512_add_epi64(_mm512_set1_epi64(right), steps), kBits), last);
      const __m512i word = _mm512_srai_epi64(l, 6);
      if (_mm512_mask_cmpneq_epi64_mask(first_lanes(lines), word, _mm512_srai_epi64(r, 6)) == 0)
        sets_.add(_mm512_add_epi64(at, word),
                  _mm512_and_si512(shift_left(ones, l), _mm512_srlv_epi64(ones, low_bits(_mm512_xor_si512(r, ones)))),
                  lines);
      else
        set_runs(l, r, row, lines);
      const __m512i b = _mm512_add_epi64(_mm512_set1_epi64(behind), slopes);
      flips_.add(_mm512_add_epi64(at, _mm512_srai_epi64(b, kShift + 6)),
                 shift_left(_mm512_set1_epi64(1), _mm512_srai_epi64(b, kShift)), rows >= 8 ? 8 : rows);
      left += 8 * step_[k];
      right += 8 * step_[k];
      behind += 8 * slope_[k];
      row += 8 * plane_.words;
    }
  }

  void set_runs(__m512i left, __m512i right, int64_t row, int64_t n) {
    alignas(64) int64_t l[8], r[8];
    _mm512_store_si512(l, left);
    _mm512_store_si512(r, right);
    for (int64_t i = 0; i < n; ++i) set_run(plane_.sets, row + i * plane_.words, l[i], r[i]);
  }

  void flush() {
    uint64_t *const sets = plane_.sets, *const toggles = plane_.toggles;
    for (int64_t i = 0; i < sets_.n; ++i) sets[sets_.at[i]] |= sets_.bits[i];
    for (int64_t i = 0; i < flips_.n; ++i) toggles[flips_.at[i]] ^= flips_.bits[i];
    sets_.n = flips_.n = 0;
  }

  static __m512i iota() { return _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0); }
  static __m512i low_bits(__m512i v) { return _mm512_and_si512(v, _mm512_set1_epi64(63)); }
  static __m512i shift_left(__m512i v, __m512i by) { return _mm512_sllv_epi64(v, low_bits(by)); }

  static constexpr int kBits = LineRows::kBits, kShift = kPositionBits;
  static constexpr int64_t kRoom = 504;

  // Words and the bits to mark in them.
  struct List {
    int64_t n = 0;
    int64_t at[kRoom + 8];
    uint64_t bits[kRoom + 8];

    void add(__m512i words, __m512i marks, int64_t valid) {
      _mm512_storeu_si512(at + n, words);
      _mm512_storeu_si512(bits + n, marks);
      n += valid;
    }
  };

  const EdgePlane plane_;
  const __m512i row_steps_;
  alignas(64) int64_t rows_[8], first_[8], last_[8], step_[8], left_[8], right_[8], slope_[8], behind_[8], row_[8];
  List sets_, flips_;
};

}  // namespace
}  // namespace dpad
