#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace dpad {

// Elements at the start of a cache line, so that no vector load straddles two. Their values are not set.
template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : data_(static_cast<T*>(::operator new(static_cast<size_t>(count) * sizeof(T), std::align_val_t(64)))) {}
  T* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(T* data) const { ::operator delete(data, std::align_val_t(64)); }
  };
  std::unique_ptr<T, Free> data_;
};

}  // namespace dpad
