#include "daemon/compute_thread.h"

#include "base/check.h"
#include "base/limits.h"

namespace caravan {

namespace {

// Steps in flight, one preparation and one release for each of a few epochs, and the head's own jobs.
constexpr size_t kQueue = 4 * limits::kMaxStepsInFlight + 64;

}  // namespace

ComputeThread::ComputeThread()
    : jobs_(kQueue), thread_([this] {
        while (auto job = jobs_.take()) (*job)();
      }) {}

ComputeThread::~ComputeThread() {
  jobs_.close();
  thread_.join();
}

void ComputeThread::post(Job job) {
  CHECK(jobs_.try_post(std::move(job)));
}

}  // namespace caravan
