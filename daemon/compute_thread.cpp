#include "daemon/compute_thread.h"

#include <chrono>
#include <utility>

#include "base/check.h"
#include "base/limits.h"

namespace caravan {

namespace {

// Steps in flight, one preparation and one release for each of a few epochs, and the head's own jobs.
constexpr size_t kQueue = 4 * limits::kMaxStepsInFlight + 64;
// Without a job.
constexpr std::chrono::milliseconds kIdle(5);

}  // namespace

ComputeThread::ComputeThread() : jobs_(kQueue), thread_([this] { run(); }) {}

ComputeThread::~ComputeThread() {
  jobs_.close();
  thread_.join();
}

void ComputeThread::run() {
  for (bool more = false;;) {
    if (const auto job = more ? jobs_.take(kIdle) : jobs_.take()) {
      (*job)();
      more = idle_ != nullptr;
    } else if (more) {
      more = !jobs_.closed() && idle_();
    } else {
      return;
    }
  }
}

void ComputeThread::when_idle(Idle idle) {
  post([this, idle = std::move(idle)] { idle_ = idle; });
}

void ComputeThread::post(Job job) {
  CHECK(jobs_.try_post(std::move(job)));
}

}  // namespace caravan
