// Python names for the transformer tower; a file of its own only because bindings.cpp would grow too long.
#pragma once

#include <pybind11/pybind11.h>

void bind_tower(pybind11::module_& m);
