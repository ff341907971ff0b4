#pragma once

#include <functional>
#include <thread>

#include "base/mailbox.h"

namespace caravan {

// The thread that owns the engine: runs posted jobs in order. A job never throws; what can fail in it is
// turned into an event there. The destructor runs what was posted and joins.
class ComputeThread {
 public:
  using Job = std::function<void()>;
  ComputeThread();
  ~ComputeThread();
  ComputeThread(const ComputeThread&) = delete;
  ComputeThread& operator=(const ComputeThread&) = delete;
  // Any thread. Never waits: steps in flight are bounded by the head, so the queue is too.
  void post(Job job);

 private:
  Mailbox<Job> jobs_;
  std::thread thread_;
};

}  // namespace caravan
