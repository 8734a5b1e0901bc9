#include "core/base/output_pool.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>
#define DPAD_PAGES 1
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

namespace dpad {

namespace {

constexpr size_t kPage = size_t{2} << 20;
constexpr size_t kMaxKept = size_t{4} << 30;
// So many kept bytes are not marked as free. Marking a page interrupts every processor that runs a thread of this
// process.
constexpr size_t kUnmarked = size_t{256} << 20;

size_t whole_pages(size_t bytes) {
  if (bytes > SIZE_MAX - 2 * kPage) throw std::bad_alloc();
  return std::max<size_t>((bytes + kPage - 1) / kPage, 1) * kPage;
}

#if defined(DPAD_PAGES)

// Returns null where there is no memory.
uint8_t* map(size_t bytes) {
  const size_t more = bytes + kPage;
  void* const got = mmap(nullptr, more, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (got == MAP_FAILED) return nullptr;
  const auto address = reinterpret_cast<uintptr_t>(got);
  const size_t head = (kPage - address % kPage) % kPage;
  auto* const data = static_cast<uint8_t*>(got) + head;
  if (head > 0) munmap(got, head);
  munmap(data + bytes, kPage - head);
#if defined(MADV_HUGEPAGE)
  madvise(data, bytes, MADV_HUGEPAGE);  // where the system knows no large pages, small ones do
#endif
  return data;
}

void unmap(const OutputBlock& block) {
  ASAN_UNPOISON_MEMORY_REGION(block.data, block.bytes);
  munmap(block.data, block.bytes);
}

void mark_as_free([[maybe_unused]] const OutputBlock& block) {
#if defined(__linux__) && defined(MADV_FREE)
  madvise(block.data, block.bytes, MADV_FREE);
#endif
}

size_t physical_memory() {
  const long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
  return pages > 0 && size > 0 ? static_cast<size_t>(pages) * static_cast<size_t>(size) : 0;
}

#else

uint8_t* map(size_t bytes) {
  return static_cast<uint8_t*>(::operator new(bytes, std::align_val_t(kPage), std::nothrow));
}
void unmap(const OutputBlock& block) { ::operator delete(block.data, std::align_val_t(kPage)); }
void mark_as_free(const OutputBlock&) {}
size_t physical_memory() {
  return 0;
}  // without MADV_FREE other processes could not get kept memory back: keep none unless asked to

#endif

size_t first_limit() {
  if (const char* text = std::getenv("DPAD_FAST_KEEP_MB")) {
    char* end = nullptr;
    const unsigned long long mebibytes = std::strtoull(text, &end, 10);
    if (end != text && *end == '\0') return static_cast<size_t>(std::min<unsigned long long>(mebibytes, 1 << 30)) << 20;
  }
  return std::min(physical_memory() / 8, kMaxKept);
}

class OutputPool {
 public:
  OutputBlock take(size_t wanted) {
    const size_t bytes = whole_pages(wanted);
    std::vector<OutputBlock> old;
    OutputBlock found;
    {
      const std::lock_guard<std::mutex> guard(lock_);
      const auto end = idle_.end();
      auto best = end;
      // A block more than twice as large is not taken, because a small result that lives long would hold all of it. Of
      // blocks of equal size the one that came back last is taken, which may still be in the caches.
      for (auto it = idle_.begin(); it != end; ++it)
        if (it->bytes >= bytes && it->bytes / 2 <= bytes && (best == end || it->bytes <= best->bytes)) best = it;
      if (best != end) {
        found = *best;
        kept_ -= best->bytes;
        idle_.erase(best);
      } else {
        drop_beyond(limit_ - std::min(limit_, bytes), old);
        found.era = era_;
      }
    }
    for (const OutputBlock& block : old) unmap(block);
    if (found.data != nullptr) {
      found.zeros = false;
      return found;
    }
    found.bytes = bytes;
    found.data = map(bytes);
    if (found.data == nullptr) {
      set_limit(0, false);
      found.data = map(bytes);
    }
    if (found.data == nullptr) throw std::bad_alloc();
#if defined(DPAD_PAGES)
    found.zeros = true;
#endif
    return found;
  }

  void give_back(const OutputBlock& block) noexcept {
    std::vector<OutputBlock> old;
    try {
      const std::lock_guard<std::mutex> guard(lock_);
      old.reserve(1);
      idle_.reserve(idle_.size() + 1);
      if (block.era != era_ || block.bytes > limit_) {
        old.push_back(block);
      } else {
        drop_beyond(limit_ - block.bytes, old);
        if (kept_ + block.bytes > kUnmarked) mark_as_free(block);
        idle_.push_back(block);
        kept_ += block.bytes;
      }
    } catch (const std::bad_alloc&) {
      old.clear();
      unmap(block);
    }
    for (const OutputBlock& one : old) unmap(one);
  }

  void set_limit(size_t limit, bool lasting) {
    std::vector<OutputBlock> old;
    {
      const std::lock_guard<std::mutex> guard(lock_);
      if (lasting) limit_ = limit;
      drop_beyond(limit, old);
    }
    for (const OutputBlock& block : old) unmap(block);
  }

  OutputMemory memory() {
    const std::lock_guard<std::mutex> guard(lock_);
    return {kept_, limit_};
  }

  // A fork waits for the lock: if another thread held it, it would stay locked in the child for ever.
  void before_fork() { lock_.lock(); }
  void after_fork() { lock_.unlock(); }
  void in_the_child() {
    ++era_;
    for (const OutputBlock& block : idle_) unmap(block);
    idle_.clear();
    kept_ = 0;
    lock_.unlock();
  }

 private:
  // Moves blocks to `old`, those that have waited longest first, until no more than `limit` bytes are kept.
  void drop_beyond(size_t limit, std::vector<OutputBlock>& old) {
    old.reserve(idle_.size() + 1);
    auto it = idle_.begin();
    for (; it != idle_.end() && kept_ > limit; ++it) {
      old.push_back(*it);
      kept_ -= it->bytes;
    }
    idle_.erase(idle_.begin(), it);
  }

  std::mutex lock_;
  std::vector<OutputBlock> idle_;  // in the order in which they were given back
  size_t kept_ = 0;
  size_t limit_ = first_limit();
  uint64_t era_ = 0;
};

// Never deleted: results may outlive everything else of the process.
OutputPool& pool() {
  static OutputPool* const made = new OutputPool();
#if defined(DPAD_PAGES)
  static const int registered =
      pthread_atfork([] { pool().before_fork(); }, [] { pool().after_fork(); }, [] { pool().in_the_child(); });
  (void)registered;
#endif
  return *made;
}

}  // namespace

OutputBlock take_output(size_t bytes) {
  const OutputBlock block = pool().take(bytes);
  ASAN_UNPOISON_MEMORY_REGION(block.data, bytes);
  ASAN_POISON_MEMORY_REGION(block.data + bytes, block.bytes - bytes);
  return block;
}

void give_back_output(const OutputBlock& block) noexcept {
  ASAN_POISON_MEMORY_REGION(block.data, block.bytes);
  pool().give_back(block);
}

OutputMemory output_memory() { return pool().memory(); }

void limit_output_memory(size_t limit) { pool().set_limit(limit, true); }

}  // namespace dpad
