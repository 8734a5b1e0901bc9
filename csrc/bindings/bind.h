// Python names, by domain: each file of this folder binds one of these.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <tuple>

// (vertices, their number, ring starts, number of rings, object starts, number of objects); checked before use.
using PolygonArgs = std::tuple<std::uintptr_t, int64_t, std::uintptr_t, int64_t, std::uintptr_t, int64_t>;

void bind_masks(pybind11::module_& m);
void bind_rle(pybind11::module_& m);
void bind_polygons(pybind11::module_& m);
void bind_crops(pybind11::module_& m);
void bind_memory(pybind11::module_& m);
void bind_cuda(pybind11::module_& m);
void bind_tower(pybind11::module_& m);
