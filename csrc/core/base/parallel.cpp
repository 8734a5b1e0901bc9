#include "core/base/parallel.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif

namespace dpad {

namespace {

using Body = std::function<void(int64_t, int)>;

struct ParallelLoop {
  ParallelLoop(const Body& body_, int64_t items_) : body(body_), items(items_) {}

  const Body& body;
  const int64_t items;
  std::atomic<int64_t> next{0};
  std::atomic<int> workers{0};
  std::mutex failure_lock;
  std::exception_ptr failure;

  void work() {
    const int slot = workers.fetch_add(1, std::memory_order_relaxed);
    for (;;) {
      const int64_t item = next.fetch_add(1, std::memory_order_relaxed);
      if (item >= items) return;
      try {
        body(item, slot);
      } catch (...) {
        const std::lock_guard<std::mutex> guard(failure_lock);
        if (!failure) failure = std::current_exception();
        next.store(items, std::memory_order_relaxed);
      }
    }
  }
};

class ThreadPool {
 public:
  // Returns false, with nothing done, where another caller has the pool.
  bool run(ParallelLoop& loop, int helpers) {
    if (busy_.exchange(true, std::memory_order_acquire)) return false;
    start_threads(helpers);
    {
      const std::lock_guard<std::mutex> guard(lock_);
      loop_ = &loop;
      wanted_ = std::min(helpers, threads_);
      ++round_;
    }
    wake_.notify_all();
    loop.work();
    std::unique_lock<std::mutex> guard(lock_);
    wanted_ = 0;  // a helper that has not begun yet has nothing left to do
    done_.wait(guard, [this] { return running_ == 0; });
    loop_ = nullptr;
    busy_.store(false, std::memory_order_release);
    return true;
  }

 private:
  void start_threads(int count) {
    while (threads_ < count) {
      try {
        std::thread([this] { serve(); }).detach();
      } catch (const std::system_error&) {
        return;  // the system gives no more threads: go on with the existing ones
      }
      ++threads_;
    }
  }

  void serve() {
    uint64_t seen = 0;
    std::unique_lock<std::mutex> guard(lock_);
    for (;;) {
      wake_.wait(guard, [&] { return round_ != seen && wanted_ > 0; });
      seen = round_;
      --wanted_;
      ++running_;
      ParallelLoop* loop = loop_;
      guard.unlock();
      loop->work();
      guard.lock();
      if (--running_ == 0) done_.notify_all();
    }
  }

  std::atomic<bool> busy_{false};
  std::mutex lock_;
  std::condition_variable wake_;
  std::condition_variable done_;
  ParallelLoop* loop_ = nullptr;
  uint64_t round_ = 0;
  int wanted_ = 0;
  int running_ = 0;
  int threads_ = 0;
};

// Never deleted: its threads may still wait on it while the process ends. Null again in a forked child, where the
// threads do not exist; the child leaks the parent's copy, whose locks may be held for ever.
std::atomic<ThreadPool*> g_pool{nullptr};

ThreadPool& pool() {
  ThreadPool* found = g_pool.load(std::memory_order_acquire);
  if (found != nullptr) return *found;
  ThreadPool* made = new ThreadPool();
  if (g_pool.compare_exchange_strong(found, made, std::memory_order_acq_rel)) return *made;
  delete made;
  return *found;
}

void forget_pool_after_fork() {
#if defined(__unix__) || defined(__APPLE__)
  static const int registered = pthread_atfork(nullptr, nullptr, [] { g_pool.store(nullptr); });
  (void)registered;
#endif
}

int usable_processors() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace

int parallel_slots(int64_t items, int threads) {
  if (threads <= 1 || items <= 1) return 1;
  return static_cast<int>(std::min<int64_t>(items, std::min(threads, usable_processors())));
}

void parallel_for(int64_t items, int threads, const Body& body) {
  ParallelLoop loop(body, items);
  const int slots = parallel_slots(items, threads);
  forget_pool_after_fork();
  if (slots <= 1 || !pool().run(loop, slots - 1)) loop.work();
  if (loop.failure) std::rethrow_exception(loop.failure);
}

}  // namespace dpad
