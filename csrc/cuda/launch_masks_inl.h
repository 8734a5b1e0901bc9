// The mask entry points of launch.h, over a Backend that runs bodies: kernels.cuh on a GPU, tests/csrc on the host.
#pragma once

#include "cuda/launch.h"
#include "cuda/mask_bodies.h"
#include "cuda/matrix_body.h"

namespace dpad::gpu {

template <typename Backend>
void zero_counts(Backend& backend, int64_t* intersection, int64_t* uni, int64_t count) {
  backend.template run<ZeroCountsBody>({intersection, uni, count});
}

template <Ignoring kIgnoring, typename Backend>
void run_matrix(Backend& backend, MatrixArgs args) {
  args.splits = MatrixBody<kIgnoring>::splits(args);
  backend.template run<MatrixBody<kIgnoring>>(args);
}

}  // namespace dpad::gpu

const char* dpad_cuda_pack(const uint8_t* dense, int64_t n, int64_t height, int64_t width, uint64_t* words,
                           int64_t* area, int64_t* box, DpadStream stream) {
  DPAD_BACKEND backend(stream);
  backend.run<dpad::gpu::PackBody>({dense, words, n, height, width});
  backend.run<dpad::gpu::MeasureBody>({words, area, box, n, height, width});
  return backend.error();
}

const char* dpad_cuda_unpack(const uint64_t* words, int64_t n, int64_t height, int64_t width, uint8_t* dense,
                             DpadStream stream) {
  DPAD_BACKEND backend(stream);
  backend.run<dpad::gpu::UnpackBody>({words, dense, n, height, width});
  return backend.error();
}

const char* dpad_cuda_measure(const uint64_t* words, int64_t n, int64_t height, int64_t width, int64_t* area,
                              int64_t* box, DpadStream stream) {
  DPAD_BACKEND backend(stream);
  backend.run<dpad::gpu::MeasureBody>({words, area, box, n, height, width});
  return backend.error();
}

const char* dpad_cuda_dense_counts(const uint8_t* a, const uint8_t* b, const uint8_t* ignore, int64_t ignore_step,
                                   int64_t n, int64_t pixels, int64_t* intersection, int64_t* uni, DpadStream stream) {
  DPAD_BACKEND backend(stream);
  dpad::gpu::zero_counts(backend, intersection, uni, n);
  backend.run<dpad::gpu::DenseCountsBody>({a, b, ignore, ignore_step, n, pixels, intersection, uni});
  return backend.error();
}

const char* dpad_cuda_packed_counts(const uint64_t* a, const uint64_t* b, const uint64_t* ignore, int64_t ignore_step,
                                    int64_t n, int64_t size, int64_t* intersection, int64_t* uni, DpadStream stream) {
  DPAD_BACKEND backend(stream);
  dpad::gpu::zero_counts(backend, intersection, uni, n);
  backend.run<dpad::gpu::PackedCountsBody>({a, b, ignore, ignore_step, n, size, intersection, uni});
  return backend.error();
}

const char* dpad_cuda_matrix_counts(const uint64_t* a, const int64_t* area_a, int64_t n, const uint64_t* b,
                                    const int64_t* area_b, int64_t m, const uint64_t* ignore, int64_t ignore_step,
                                    int64_t size, int64_t* intersection, int64_t* uni, DpadStream stream) {
  using dpad::gpu::Ignoring;
  DPAD_BACKEND backend(stream);
  const dpad::gpu::MatrixArgs args{a, b, ignore, area_a, area_b, n, m, size, 1, intersection, uni};
  dpad::gpu::zero_counts(backend, intersection, uni, n * m);
  if (ignore == nullptr)
    dpad::gpu::run_matrix<Ignoring::nothing>(backend, args);
  else if (ignore_step == 0)
    dpad::gpu::run_matrix<Ignoring::one>(backend, args);
  else
    dpad::gpu::run_matrix<Ignoring::each>(backend, args);
  return backend.error();
}

const char* dpad_cuda_ratio(const int64_t* intersection, const int64_t* uni, int64_t count, double empty, double* iou,
                            DpadStream stream) {
  DPAD_BACKEND backend(stream);
  backend.run<dpad::gpu::RatioBody>({intersection, uni, iou, count, empty});
  return backend.error();
}
