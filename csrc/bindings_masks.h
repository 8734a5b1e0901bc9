// Python names for masks, run lengths and polygons; a second file only because bindings.cpp would grow too long.
#pragma once

#include <pybind11/pybind11.h>

void bind_masks(pybind11::module_& m);
void bind_rle(pybind11::module_& m);
void bind_polygons(pybind11::module_& m);
