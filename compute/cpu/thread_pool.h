#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

namespace caravan::cpu {

// Workers for the loops of one compute thread. That thread is worker 0 and alone may call; the others spin
// for some microseconds after a loop and then sleep. No locks: a loop is published by `generation_`, entered
// and left by `state_`.
class ThreadPool {
 public:
  explicit ThreadPool(uint32_t threads);  // at least 1
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  uint32_t threads() const { return static_cast<uint32_t>(workers_.size()) + 1; }

  // Calls function(first, last, worker) for ranges of at most `grain` that cover [0, count), in any order and
  // at once; returns when all are done. `function` must not throw.
  template <class Function>
  void parallel_for(uint64_t count, uint64_t grain, Function&& function) {
    using Plain = std::remove_reference_t<Function>;
    run(
        count, grain,
        [](void* context, uint64_t first, uint64_t last, uint32_t worker) {
          (*static_cast<Plain*>(context))(first, last, worker);
        },
        const_cast<void*>(static_cast<const void*>(&function)));
  }

 private:
  using Call = void (*)(void* context, uint64_t first, uint64_t last, uint32_t worker);
  void run(uint64_t count, uint64_t grain, Call call, void* context);
  void take_ranges(uint32_t worker);
  void work(uint32_t worker);
  bool enter(uint32_t generation);
  void end();

  // The loop that runs; written by the caller while `state_` is closed and empty.
  Call call_ = nullptr;
  void* context_ = nullptr;
  uint64_t count_ = 0;
  uint64_t grain_ = 1;
  std::atomic<uint64_t> next_{0};

  std::atomic<uint32_t> generation_{0};  // workers sleep on it
  std::atomic<uint64_t> state_;          // generation << 32 | closed << 31 | workers inside
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> workers_;
};

}  // namespace caravan::cpu
