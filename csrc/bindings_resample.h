// Python names for the fused preprocessing; a second file only because bindings.cpp would grow too long.
#pragma once

#include <pybind11/pybind11.h>

void bind_resample(pybind11::module_& m);
