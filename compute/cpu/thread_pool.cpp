#include "compute/cpu/thread_pool.h"

#include "base/check.h"

namespace caravan::cpu {
namespace {

constexpr uint64_t kClosed = uint64_t{1} << 31;
constexpr uint64_t kInside = kClosed - 1;
// About 30 us: longer than the gap between two loops of a layer, short enough not to starve a neighbour.
constexpr int kSpins = 1000;

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(uint32_t threads) : state_(kClosed) {
  CHECK(threads >= 1u);
  workers_.reserve(threads - 1);
  try {
    for (uint32_t worker = 1; worker < threads; ++worker)
      workers_.emplace_back([this, worker] { work(worker); });
  } catch (...) {
    end();
    throw;
  }
}

ThreadPool::~ThreadPool() {
  end();
}

void ThreadPool::end() {
  stopping_.store(true);
  generation_.fetch_add(1);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(uint64_t count, uint64_t grain, Call call, void* context) {
  if (count == 0) return;
  if (grain == 0) grain = 1;
  if (workers_.empty() || count <= grain) {
    for (uint64_t first = 0; first < count; first += grain) {
      call(context, first, count - first < grain ? count : first + grain, 0);
    }
    return;
  }
  call_ = call;
  context_ = context;
  count_ = count;
  grain_ = grain;
  next_.store(0, std::memory_order_relaxed);
  const uint32_t generation = generation_.load(std::memory_order_relaxed) + 1;
  state_.store(uint64_t{generation} << 32, std::memory_order_release);
  generation_.store(generation);
  generation_.notify_all();
  take_ranges(0);
  // A worker that has not come yet is not waited for: it finds the loop closed.
  state_.fetch_or(kClosed, std::memory_order_acq_rel);
  int spins = 0;
  while (state_.load(std::memory_order_acquire) & kInside) {
    if (++spins > kSpins) {
      std::this_thread::yield();
    } else {
      pause_briefly();
    }
  }
}

void ThreadPool::take_ranges(uint32_t worker) {
  const uint64_t count = count_, grain = grain_;
  for (;;) {
    const uint64_t first = next_.fetch_add(grain, std::memory_order_relaxed);
    if (first >= count) return;
    call_(context_, first, count - first < grain ? count : first + grain, worker);
  }
}

bool ThreadPool::enter(uint32_t generation) {
  uint64_t state = state_.load(std::memory_order_acquire);
  while ((state >> 32) == generation && !(state & kClosed)) {
    if (state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel)) return true;
  }
  return false;
}

void ThreadPool::work(uint32_t worker) {
  uint32_t seen = 0;
  for (;;) {
    uint32_t generation = generation_.load(std::memory_order_acquire);
    for (int spins = 0; generation == seen && spins < kSpins; ++spins) {
      pause_briefly();
      generation = generation_.load(std::memory_order_acquire);
    }
    if (generation == seen) {
      generation_.wait(seen);
      continue;
    }
    if (stopping_.load()) return;
    seen = generation;
    if (!enter(generation)) continue;
    take_ranges(worker);
    state_.fetch_sub(1, std::memory_order_acq_rel);
  }
}

}  // namespace caravan::cpu
