#include "simd/crops/vector_inl.h"

namespace dpad {

const CropTable kCropAvx2 = {SimdLevel::avx2, across, down, to_float32, to_bfloat16, to_float16};

}  // namespace dpad
