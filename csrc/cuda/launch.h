// Plain entry points of the CUDA kernels: addresses on the device, sizes, a device and a stream. Nothing here waits for
// the GPU, allocates, or knows torch or Python, so each call may be captured into a CUDA graph. Each returns null, or
// says what is wrong in the words of cudaGetErrorString.
#pragma once

#include <cstdint>

// The test library of tests/csrc exports these names; the extension does not.
#ifdef DPAD_CUDA_EXPORT
#define DPAD_CUDA_API extern "C" __attribute__((visibility("default")))
#else
#define DPAD_CUDA_API extern "C"
#endif

struct DpadStream {
  int device;
  void* handle;  // a cudaStream_t
};

struct DpadPolygons {
  const double* vertices;        // [vertex_count, 2]
  const int64_t* ring_starts;    // [ring_count + 1], of vertices
  const int64_t* object_starts;  // [n + 1], of rings
  int64_t vertex_count, ring_count, n;
  const char* rule;  // "coco", "opencv" or "center"
};

// dense [n, height, width] bytes, not 0 is set; fills words [n, height, ceil(width / 64)], area [n] and box [n, 4].
DPAD_CUDA_API const char* dpad_cuda_pack(const uint8_t* dense, int64_t n, int64_t height, int64_t width,
                                         uint64_t* words, int64_t* area, int64_t* box, DpadStream stream);
DPAD_CUDA_API const char* dpad_cuda_unpack(const uint64_t* words, int64_t n, int64_t height, int64_t width,
                                           uint8_t* dense, DpadStream stream);
DPAD_CUDA_API const char* dpad_cuda_measure(const uint64_t* words, int64_t n, int64_t height, int64_t width,
                                            int64_t* area, int64_t* box, DpadStream stream);

// Counts [n] of pairs of dense masks [n, pixels]; ignore is null, or ignore_step bytes from mask to mask.
DPAD_CUDA_API const char* dpad_cuda_dense_counts(const uint8_t* a, const uint8_t* b, const uint8_t* ignore,
                                                 int64_t ignore_step, int64_t n, int64_t pixels, int64_t* intersection,
                                                 int64_t* uni, DpadStream stream);
// Counts [n] of pairs of packed masks of `size` words; ignore is null, or ignore_step words from mask to mask.
DPAD_CUDA_API const char* dpad_cuda_packed_counts(const uint64_t* a, const uint64_t* b, const uint64_t* ignore,
                                                  int64_t ignore_step, int64_t n, int64_t size, int64_t* intersection,
                                                  int64_t* uni, DpadStream stream);
// Counts [n, m] of all pairs; ignore is null, one mask (ignore_step 0), or one for each mask of b.
DPAD_CUDA_API const char* dpad_cuda_matrix_counts(const uint64_t* a, const int64_t* area_a, int64_t n,
                                                  const uint64_t* b, const int64_t* area_b, int64_t m,
                                                  const uint64_t* ignore, int64_t ignore_step, int64_t size,
                                                  int64_t* intersection, int64_t* uni, DpadStream stream);

// IoU [count] of counts; `empty` where the union is empty.
DPAD_CUDA_API const char* dpad_cuda_ratio(const int64_t* intersection, const int64_t* uni, int64_t count, double empty,
                                          double* iou, DpadStream stream);

// Bands of rows that an object is drawn in, each by a block.
DPAD_CUDA_API int64_t dpad_cuda_bands(int64_t height, int64_t width);
// Fills words, area and box as dpad_cuda_pack does; scratch is 5 int32 for each band of each object.
DPAD_CUDA_API const char* dpad_cuda_draw(const DpadPolygons* polygons, int64_t height, int64_t width, uint64_t* words,
                                         int64_t* area, int64_t* box, int32_t* scratch, DpadStream stream);
DPAD_CUDA_API const char* dpad_cuda_draw_dense(const DpadPolygons* polygons, int64_t height, int64_t width,
                                               uint8_t* dense, DpadStream stream);
// Counts [n] of object i against mask index[i] (i where index is null) of mask_count; an object whose index is no mask
// gets 0 and 0. ignore is null, or ignore_step words from mask to mask.
DPAD_CUDA_API const char* dpad_cuda_draw_counts(const DpadPolygons* polygons, int64_t height, int64_t width,
                                                const uint64_t* masks, int64_t mask_count, const int64_t* index,
                                                const uint64_t* ignore, int64_t ignore_step, int64_t* intersection,
                                                int64_t* uni, DpadStream stream);
