// Memory crosses as addresses, which are integers: dpad_fast checks tensors and arrays for type, shape and layout
// before it calls, and the extension builds without torch. 0 is "not given" where a function says so.
#pragma once

#include <cstdint>

using Address = std::uintptr_t;

template <typename T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}
