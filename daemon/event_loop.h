#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/clock.h"
#include "base/ids.h"

namespace boost::asio {
class io_context;
}

namespace caravan {

using TimerId = Id<struct TimerTag, uint64_t>;

// The control thread's loop (Asio): posted tasks, timers, signals, and the sockets of the HTTP server. Tasks
// run one after another on the thread that calls run(); an exception of a task leaves run(). Only post() and
// stop() may be called from another thread.
class EventLoop {
 public:
  using Task = std::function<void()>;
  EventLoop();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Until stop(), also while there is nothing to do; a stop() that came before counts. May be called again.
  void run();
  // Until `done()` holds after some task, or `timeout` has passed; whether it holds. For tests and clients.
  bool run_until(const std::function<bool()>& done, Duration timeout);
  // Any thread. The task that runs ends first.
  void stop();
  // Any thread. Never runs the task inside the call.
  void post(Task task);
  // Once, after at least `delay`.
  TimerId after(Duration delay, Task task);
  // The task does not run after this returns. Ids that are done are ignored.
  void cancel(TimerId timer);
  // Takes SIGINT and SIGTERM over for as long as the loop lives: `handler` runs for every one, as a task.
  void on_signal(std::function<void(int signal)> handler);

  // For the files that own sockets (http_server.cpp).
  boost::asio::io_context& context();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace caravan
