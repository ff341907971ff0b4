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
  // What is done between jobs, when none came for a short while: again and again as long as it says that
  // there is more to do, and anew after the next job. It takes no time to speak of. Of the thread, as jobs
  // are.
  using Idle = std::function<bool()>;
  void when_idle(Idle idle);

 private:
  void run();

  Mailbox<Job> jobs_;
  Idle idle_;  // of the thread
  std::thread thread_;
};

}  // namespace caravan
