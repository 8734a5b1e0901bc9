// Runs a body as a CUDA kernel on a stream.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/block.h"
#include "cuda/launch.h"

namespace dpad::gpu {

// A body says how many of its blocks a multiprocessor should hold, which is how many registers a thread may have.
template <typename Body>
__global__ void __launch_bounds__(Body::kThreads, Body::kBlocks) run_body(const typename Body::Args args) {
  // Bytes, so that no constructor runs: a late thread's would undo what an early thread has written.
  __shared__ alignas(16) unsigned char memory[sizeof(typename Body::Shared)];
  DeviceBlock block;
  Body::run(block, *reinterpret_cast<typename Body::Shared*>(memory), args, static_cast<int64_t>(blockIdx.x));
}

// Launches on the caller's device and stream, and keeps the first error. The thread's current device is put back.
class CudaBackend {
 public:
  explicit CudaBackend(const DpadStream& stream) : stream_(static_cast<cudaStream_t>(stream.handle)) {
    if (keep(cudaGetDevice(&before_))) return;
    if (before_ != stream.device) keep(cudaSetDevice(stream.device));
    changed_ = before_ != stream.device;
  }
  ~CudaBackend() {
    if (changed_) cudaSetDevice(before_);
  }
  CudaBackend(const CudaBackend&) = delete;
  CudaBackend& operator=(const CudaBackend&) = delete;

  template <typename Body>
  void run(const typename Body::Args& args) {
    const int64_t blocks = Body::blocks(args);
    if (error_ != nullptr || blocks == 0) return;
    if (blocks > INT32_MAX) {
      error_ = "more than 2^31 - 1 thread blocks would be needed";
      return;
    }
    run_body<Body><<<static_cast<unsigned>(blocks), Body::kThreads, 0, stream_>>>(args);
    keep(cudaGetLastError());
  }

  void refuse(const char* why) {
    if (error_ == nullptr) error_ = why;
  }

  const char* error() const { return error_; }

 private:
  bool keep(cudaError_t code) {
    if (code != cudaSuccess && error_ == nullptr) error_ = cudaGetErrorString(code);
    return code != cudaSuccess;
  }

  cudaStream_t stream_;
  int before_ = 0;
  bool changed_ = false;
  const char* error_ = nullptr;
};

}  // namespace dpad::gpu

#define DPAD_BACKEND dpad::gpu::CudaBackend
