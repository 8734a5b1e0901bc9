// Lets one body serve a GPU and a host test: a block of threads that runs in phases, and the few instructions that
// differ between the two. A body is written as a sequence of block.each(phase); between phases all threads of the block
// wait for each other. On a GPU each thread runs the phase once; on the host a loop runs all threads, in an order that
// the test chooses, so that a test fails where one thread reads what another writes in the same phase.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define DPAD_HD __host__ __device__ __forceinline__
#else
#define DPAD_HD inline
#endif

namespace dpad::gpu {

DPAD_HD int popcount(uint64_t word) {
#if defined(__CUDA_ARCH__)
  return __popcll(word);
#else
  return __builtin_popcountll(word);
#endif
}

DPAD_HD int lowest_bit(uint64_t word) {
#if defined(__CUDA_ARCH__)
  return __ffsll(static_cast<long long>(word)) - 1;
#else
  return __builtin_ctzll(word);
#endif
}

DPAD_HD int highest_bit(uint64_t word) {
#if defined(__CUDA_ARCH__)
  return 63 - __clzll(static_cast<long long>(word));
#else
  return 63 - __builtin_clzll(word);
#endif
}

DPAD_HD void atomic_flip(uint32_t* at, uint32_t bits) {
#if defined(__CUDA_ARCH__)
  atomicXor(at, bits);
#else
  *at ^= bits;
#endif
}

DPAD_HD void atomic_set(uint32_t* at, uint32_t bits) {
#if defined(__CUDA_ARCH__)
  atomicOr(at, bits);
#else
  *at |= bits;
#endif
}

DPAD_HD void atomic_least(int32_t* at, int32_t value) {
#if defined(__CUDA_ARCH__)
  atomicMin(at, value);
#else
  *at = value < *at ? value : *at;
#endif
}

DPAD_HD void atomic_most(int32_t* at, int32_t value) {
#if defined(__CUDA_ARCH__)
  atomicMax(at, value);
#else
  *at = value > *at ? value : *at;
#endif
}

// Sums of integers, so their order does not matter; negative terms wrap around.
DPAD_HD void atomic_add(int64_t* at, int64_t value) {
#if defined(__CUDA_ARCH__)
  atomicAdd(reinterpret_cast<unsigned long long*>(at), static_cast<unsigned long long>(value));
#else
  *at += value;
#endif
}

template <typename T>
DPAD_HD T minimum(T a, T b) {
  return b < a ? b : a;
}

template <typename T>
DPAD_HD T maximum(T a, T b) {
  return a < b ? b : a;
}

template <typename T>
DPAD_HD T clamped(T value, T low, T high) {
  return minimum(maximum(value, low), high);
}

// 16 bytes that are loaded and stored at once where their address allows it.
struct alignas(16) WordPair {
  uint64_t low, high;
};

DPAD_HD bool is_aligned(const void* at) { return (reinterpret_cast<uintptr_t>(at) & 15) == 0; }

DPAD_HD WordPair load_aligned(const void* at) {
#if defined(__CUDA_ARCH__)
  const uint4 v = __ldg(static_cast<const uint4*>(at));
  return {v.x | static_cast<uint64_t>(v.y) << 32, v.z | static_cast<uint64_t>(v.w) << 32};
#else
  WordPair pair;
  std::memcpy(&pair, at, sizeof pair);
  return pair;
#endif
}

DPAD_HD void store_aligned(void* at, const WordPair& pair) {
#if defined(__CUDA_ARCH__)
  *static_cast<uint4*>(at) = make_uint4(static_cast<uint32_t>(pair.low), static_cast<uint32_t>(pair.low >> 32),
                                        static_cast<uint32_t>(pair.high), static_cast<uint32_t>(pair.high >> 32));
#else
  std::memcpy(at, &pair, sizeof pair);
#endif
}

// Words 2 i and 2 i + 1 of `count`; 0 past the end. `aligned` says that `words` starts at a multiple of 16 bytes.
DPAD_HD WordPair load_pair(const uint64_t* words, int64_t i, int64_t count, bool aligned) {
  const int64_t at = 2 * i;
  if (aligned && at + 1 < count) return load_aligned(words + at);
  return {at < count ? words[at] : 0, at + 1 < count ? words[at + 1] : 0};
}

DPAD_HD void store_pair(uint64_t* words, int64_t i, int64_t count, bool aligned, const WordPair& pair) {
  const int64_t at = 2 * i;
  if (aligned && at + 1 < count) return store_aligned(words + at, pair);
  if (at < count) words[at] = pair.low;
  if (at + 1 < count) words[at + 1] = pair.high;
}

#if defined(__CUDACC__)
// The block that a GPU runs: a phase is run once, by the thread that asks.
struct DeviceBlock {
  template <typename T>
  struct Local {
    T value{};
    __host__ __device__ T& operator[](int) { return value; }
  };

  template <typename Phase>
  __host__ __device__ void each(Phase&& phase) const {
#if defined(__CUDA_ARCH__)
    phase(static_cast<int>(threadIdx.x));
    __syncthreads();
#endif
  }
};
#endif

// The block that a host test runs: all threads in turn, forwards, backwards, or in strides of an odd number.
template <int kThreads>
struct HostBlock {
  int stride;  // odd, so that it meets every thread of a power of two

  template <typename T>
  struct Local {
    T values[kThreads]{};
    T& operator[](int thread) { return values[thread]; }
  };

  template <typename Phase>
  void each(Phase&& phase) const {
    for (int turn = 0; turn < kThreads; ++turn) phase((turn * stride) & (kThreads - 1));
  }
};

// Adds up one value per thread with `join(into, from)`; the result is in totals[0] after it. `totals` is shared memory.
template <int kThreads, typename Block, typename T, typename Join>
DPAD_HD void reduce(Block& block, typename Block::template Local<T>& own, T* totals, const Join& join) {
  block.each([&](int thread) { totals[thread] = own[thread]; });
  for (int half = kThreads / 2; half > 0; half /= 2)
    block.each([&](int thread) {
      if (thread < half) join(totals[thread], totals[thread + half]);
    });
}

DPAD_HD int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A body that does one thing for each of Body::items(args) items, each by a thread: Body::one(args, i).
template <typename Body, typename ItemArgs, int kThreadsOfBlock>
struct ItemBody {
  using Args = ItemArgs;
  static constexpr int kThreads = kThreadsOfBlock, kBlocks = 4;
  struct Shared {};

  DPAD_HD static int64_t blocks(const Args& a) { return ceil_div(Body::items(a), kThreads); }

  template <typename Block>
  DPAD_HD static void run(Block& block, Shared&, const Args& a, int64_t index) {
    block.each([&](int thread) {
      const int64_t i = index * kThreads + thread;
      if (i < Body::items(a)) Body::one(a, i);
    });
  }
};

}  // namespace dpad::gpu
