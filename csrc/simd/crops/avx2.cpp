#include "simd/crops/vector_inl.h"

namespace dpad {

const ResampleKernels kResampleAvx2 = {across, down, to_float32, to_bfloat16, to_float16};

}  // namespace dpad
