// The CUDA kernels' bodies and launchers as host code: the entry points of csrc/cuda/launch.h over a backend that plays
// every block and thread in loops. Built by tests/csrc/conftest.py through CMake (DPAD_FAST_TESTS).
#include <cstdlib>
#include <cstring>
#include <memory>

#include "cuda/block.h"
#include "cuda/launch.h"

namespace {

int thread_stride = 1;

// Shared memory starts as garbage, as on a GPU, and blocks run last to first where threads do.
class HostBackend {
 public:
  explicit HostBackend(const DpadStream& stream) {
    if (stream.device != 0) error_ = "invalid device ordinal";
  }

  template <typename Body>
  void run(const typename Body::Args& args) {
    using Shared = typename Body::Shared;
    if (error_ != nullptr) return;
    const std::unique_ptr<void, decltype(&std::free)> memory(std::aligned_alloc(64, (sizeof(Shared) + 63) / 64 * 64),
                                                             &std::free);
    Shared& shared = *static_cast<Shared*>(memory.get());
    const int64_t blocks = Body::blocks(args);
    for (int64_t i = 0; i < blocks; ++i) {
      std::memset(memory.get(), 0xa5, sizeof(Shared));
      dpad::gpu::HostBlock<Body::kThreads> block{thread_stride};
      Body::run(block, shared, args, thread_stride > 0 ? i : blocks - 1 - i);
    }
  }

  void refuse(const char* why) {
    if (error_ == nullptr) error_ = why;
  }

  const char* error() const { return error_; }

 private:
  const char* error_ = nullptr;
};

}  // namespace

#define DPAD_BACKEND HostBackend
#include "cuda/launch_masks_inl.h"
#include "cuda/launch_polygons_inl.h"

// The order in which the threads of a block are played: 1 forwards, -1 backwards, another odd number in strides.
DPAD_CUDA_API void dpad_host_thread_stride(int stride) { thread_stride = stride; }
