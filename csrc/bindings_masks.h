// Python names for masks, run lengths, polygons, output memory and CUDA kernels; apart because bindings.cpp would grow
// too long.
#pragma once

#include <pybind11/pybind11.h>

void bind_masks(pybind11::module_& m);
void bind_rle(pybind11::module_& m);
void bind_polygons(pybind11::module_& m);
void bind_output(pybind11::module_& m);
void bind_cuda(pybind11::module_& m);
