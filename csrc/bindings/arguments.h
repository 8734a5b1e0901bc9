// Masks and polygons as dpad_fast.ops passes them, for every file of this folder that takes them.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "bindings/address.h"
#include "core/masks/polygons.h"

// For arrays that are read through pointers: NumPy's may begin at any byte.
constexpr int kAligned = pybind11::detail::npy_api::NPY_ARRAY_ALIGNED_;

// (words, area, box, n), as dpad_fast.ops hands over a PackedMasks.
using PackedArgs = std::tuple<Address, Address, Address, int64_t>;

// Throws std::invalid_argument where there cannot be n masks of this size: the loops' memory on the stack depends on
// it.
void check_masks(int64_t n, int64_t height, int64_t width);

// Boxes say which words are read, so they are checked even though dpad_fast.ops made them. Throws
// std::invalid_argument.
dpad::PackedView packed_masks(const PackedArgs& args, int64_t height, int64_t width);
std::optional<dpad::PackedView> packed_masks(const std::optional<PackedArgs>& args, int64_t height, int64_t width);

// Throws std::invalid_argument where `ignored`, if given, is neither one mask nor one for each of n.
void check_ignored(const std::optional<dpad::PackedView>& ignored, int64_t n);

// (vertices, their number, ring starts, number of rings, object starts, number of objects).
using PolygonArgs = std::tuple<Address, int64_t, Address, int64_t, Address, int64_t>;

// Throws std::invalid_argument where a number of items is negative.
void check_counts(const PolygonArgs& args);
// Polygons that have been checked: reads all of them. Throws std::invalid_argument.
dpad::PolygonBatch checked_polygons(const PolygonArgs& args);

constexpr std::pair<const char*, dpad::PolygonRule> kPolygonRules[] = {
    {"coco", dpad::PolygonRule::coco},
    {"opencv", dpad::PolygonRule::opencv},
    {"center", dpad::PolygonRule::center},
};
