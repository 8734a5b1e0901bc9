// The polygon entry points of launch.h, over a Backend that runs bodies; see launch_masks_inl.h.
#pragma once

#include <cstring>

#include "cuda/launch.h"
#include "cuda/polygon_bodies.h"

namespace dpad::gpu {

inline DrawArgs draw_args(const DpadPolygons& p, int64_t height, int64_t width) {
  return {{p.vertices, p.ring_starts, p.object_starts, p.vertex_count, p.ring_count, p.n}, height, width};
}

template <template <Rule> class Body, typename Backend, typename Args>
void run_rule(Backend& backend, const char* rule, const Args& args) {
  if (std::strcmp(rule, "coco") == 0) return backend.template run<Body<Rule::coco>>(args);
  if (std::strcmp(rule, "opencv") == 0) return backend.template run<Body<Rule::opencv>>(args);
  if (std::strcmp(rule, "center") == 0) return backend.template run<Body<Rule::center>>(args);
  backend.refuse("the rule is none of coco, opencv and center");
}

}  // namespace dpad::gpu

int64_t dpad_cuda_bands(int64_t height, int64_t width) { return dpad::gpu::band_count(height, width); }

const char* dpad_cuda_draw(const DpadPolygons* polygons, int64_t height, int64_t width, uint64_t* words, int64_t* area,
                           int64_t* box, int32_t* scratch, DpadStream stream) {
  using namespace dpad::gpu;
  static_assert(sizeof(Extent) == 5 * sizeof(int32_t), "scratch is counted in int32");
  DPAD_BACKEND backend(stream);
  Extent* extents = reinterpret_cast<Extent*>(scratch);
  run_rule<DrawWordsBody>(backend, polygons->rule, DrawWordsArgs{draw_args(*polygons, height, width), words, extents});
  backend.run<JoinBody>({extents, area, box, polygons->n, band_count(height, width)});
  return backend.error();
}

const char* dpad_cuda_draw_dense(const DpadPolygons* polygons, int64_t height, int64_t width, uint8_t* dense,
                                 DpadStream stream) {
  using namespace dpad::gpu;
  DPAD_BACKEND backend(stream);
  run_rule<DrawDenseBody>(backend, polygons->rule, DrawDenseArgs{draw_args(*polygons, height, width), dense});
  return backend.error();
}

const char* dpad_cuda_draw_counts(const DpadPolygons* polygons, int64_t height, int64_t width, const uint64_t* masks,
                                  int64_t mask_count, const int64_t* index, const uint64_t* ignore, int64_t ignore_step,
                                  int64_t* intersection, int64_t* uni, DpadStream stream) {
  using namespace dpad::gpu;
  DPAD_BACKEND backend(stream);
  backend.run<ZeroCountsBody>({intersection, uni, polygons->n});
  run_rule<DrawCountsBody>(backend, polygons->rule,
                           DrawCountsArgs{draw_args(*polygons, height, width), masks, index, ignore, mask_count,
                                          ignore_step, intersection, uni});
  return backend.error();
}
