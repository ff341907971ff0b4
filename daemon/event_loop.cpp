#include "daemon/event_loop.h"

#include <utility>  // Asio 1.74 needs it before its own headers in C++20

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <csignal>
#include <map>
#include <optional>

namespace asio = boost::asio;

namespace caravan {

struct EventLoop::State {
  asio::io_context context{1};
  // For the whole life: the end of the last work would otherwise count as a stop().
  asio::executor_work_guard<asio::io_context::executor_type> work = asio::make_work_guard(context);
  uint64_t timers_made = 0;
  std::map<TimerId, asio::steady_timer> timers;
  std::optional<asio::signal_set> signals;
  std::function<void(int)> on_signal;

  void wait_for_signal() {
    signals->async_wait([this](const boost::system::error_code& error, int signal) {
      if (error) return;
      wait_for_signal();
      on_signal(signal);
    });
  }
};

EventLoop::EventLoop() : state_(std::make_unique<State>()) {}
EventLoop::~EventLoop() = default;

void EventLoop::run() {
  state_->context.run();
  state_->context.restart();
}

bool EventLoop::run_until(const std::function<bool()>& done, Duration timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (!done()) {
    const auto now = std::chrono::steady_clock::now();
    if (now >= deadline) return false;
    if (state_->context.stopped()) state_->context.restart();
    state_->context.run_one_for(deadline - now);
  }
  return true;
}

void EventLoop::stop() {
  state_->context.stop();
}
void EventLoop::post(Task task) {
  asio::post(state_->context, std::move(task));
}

TimerId EventLoop::after(Duration delay, Task task) {
  const TimerId id{++state_->timers_made};
  auto& timer = state_->timers.emplace(id, state_->context).first->second;
  timer.expires_after(delay);
  timer.async_wait([state = state_.get(), id, task = std::move(task)](const boost::system::error_code&) {
    // A timer that was cancelled when its end was already queued still arrives without an error.
    if (state->timers.erase(id) > 0) task();
  });
  return id;
}

void EventLoop::cancel(TimerId timer) {
  state_->timers.erase(timer);
}

void EventLoop::on_signal(std::function<void(int signal)> handler) {
  state_->on_signal = std::move(handler);
  if (state_->signals) return;
  state_->signals.emplace(state_->context, SIGINT, SIGTERM, SIGHUP);
  state_->wait_for_signal();
}

asio::io_context& EventLoop::context() {
  return state_->context;
}

}  // namespace caravan
