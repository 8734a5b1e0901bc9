#include "cuda/kernels.cuh"
#include "cuda/launch_polygons_inl.h"
