// csrc/bindings is the only folder that knows Python. Each file binds one domain: a function turns names into enums and
// checks what C++ alone can check, releases the GIL, and calls csrc/core.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

void bind_crops(pybind11::module_& m);
void bind_cuda(pybind11::module_& m);
void bind_masks(pybind11::module_& m);
void bind_memory(pybind11::module_& m);
void bind_polygons(pybind11::module_& m);
void bind_rewards(pybind11::module_& m);
void bind_rle(pybind11::module_& m);
void bind_texts(pybind11::module_& m);
void bind_tower(pybind11::module_& m);

// Enums cross as names. Throws std::invalid_argument, which is ValueError, where the name is not among the known ones.
template <typename Enum, size_t kCount>
Enum named(const char* argument, const std::string& name, const std::pair<const char*, Enum> (&known)[kCount]) {
  std::string names;
  for (const auto& entry : known) {
    if (name == entry.first) return entry.second;
    names += (names.empty() ? "" : ", ") + std::string(entry.first);
  }
  throw std::invalid_argument(std::string(argument) + " must be one of " + names + ", got '" + name + "'");
}

// Throws std::invalid_argument where a number is not in low..high.
void check_range(const char* argument, int64_t value, int64_t low, int64_t high);
// The most items of a call, so that numbers of bytes stay within 64 bits, and numbers of items within 32.
constexpr int64_t kMostItems = INT32_MAX;

// Returns the result of `call`. Other Python threads run meanwhile, so `call` must not touch a Python object.
template <typename Call>
auto without_gil(Call&& call) {
  const pybind11::gil_scoped_release release;
  return call();
}
