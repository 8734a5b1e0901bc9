#include "cuda/kernels.cuh"
#include "cuda/launch_masks_inl.h"
