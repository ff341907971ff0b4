#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

namespace caravan {

// A bounded queue between threads: any thread posts, one thread takes. The lock is the only way state crosses
// threads.
template <class Message>
class Mailbox {
 public:
  explicit Mailbox(size_t capacity) : capacity_(capacity) {}

  // False when full or closed; the message is then untouched.
  [[nodiscard]] bool try_post(Message&& message) {
    {
      std::lock_guard lock(mutex_);
      if (closed_ || messages_.size() >= capacity_) return false;
      messages_.push_back(std::move(message));
    }
    ready_.notify_one();
    return true;
  }

  // Waits while full; false when closed.
  bool post(Message message) {
    {
      std::unique_lock lock(mutex_);
      room_.wait(lock, [&] { return closed_ || messages_.size() < capacity_; });
      if (closed_) return false;
      messages_.push_back(std::move(message));
    }
    ready_.notify_one();
    return true;
  }

  // Waits for a message; nothing once the mailbox is closed and empty.
  std::optional<Message> take() {
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [&] { return closed_ || !messages_.empty(); });
    return pop();
  }

  // The same, for so long at most.
  std::optional<Message> take(std::chrono::nanoseconds most) {
    std::unique_lock lock(mutex_);
    ready_.wait_for(lock, most, [&] { return closed_ || !messages_.empty(); });
    return pop();
  }

  std::optional<Message> try_take() {
    std::lock_guard lock(mutex_);
    return pop();
  }

  bool closed() const {
    std::lock_guard lock(mutex_);
    return closed_;
  }

  void close() {
    {
      std::lock_guard lock(mutex_);
      closed_ = true;
    }
    ready_.notify_all();
    room_.notify_all();
  }

 private:
  std::optional<Message> pop() {
    if (messages_.empty()) return std::nullopt;
    std::optional<Message> message(std::move(messages_.front()));
    messages_.pop_front();
    room_.notify_one();
    return message;
  }

  const size_t capacity_;
  mutable std::mutex mutex_;
  std::condition_variable ready_, room_;
  std::deque<Message> messages_;
  bool closed_ = false;
};

}  // namespace caravan
