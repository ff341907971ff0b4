#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "compute/codec.h"
#include "peers/zmq_link.h"

namespace caravan::test {

// What a link told, in order; the wire thread writes and the test reads.
class LinkLog {
 public:
  void add(LinkEvent event) {
    std::lock_guard lock(mutex_);
    events_.push_back(std::move(event));
    changed_.notify_all();
  }
  // Waits until `found` holds of the events so far; false after `longest`.
  bool wait(const std::function<bool(const std::vector<LinkEvent>&)>& found,
            std::chrono::milliseconds longest = std::chrono::seconds(20)) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, longest, [&] { return found(events_); });
  }
  template <class Event>
  bool wait_for(const PeerKey& peer, size_t count = 1,
                std::chrono::milliseconds longest = std::chrono::seconds(20)) {
    return wait([&](const auto& events) { return count_of<Event>(events, peer) >= count; }, longest);
  }
  template <class Event>
  size_t count(const PeerKey& peer) {
    std::lock_guard lock(mutex_);
    return count_of<Event>(events_, peer);
  }
  std::vector<Received> received(const PeerKey& from) {
    std::lock_guard lock(mutex_);
    std::vector<Received> found;
    for (const LinkEvent& event : events_)
      if (const auto* one = std::get_if<Received>(&event); one && one->from == from) found.push_back(*one);
    return found;
  }
  std::vector<LinkEvent> events() {
    std::lock_guard lock(mutex_);
    return events_;
  }

 private:
  static const PeerKey& key(const LinkUp& event) { return event.peer; }
  static const PeerKey& key(const LinkDown& event) { return event.peer; }
  static const PeerKey& key(const Received& event) { return event.from; }
  template <class Event>
  static size_t count_of(const std::vector<LinkEvent>& events, const PeerKey& peer) {
    size_t n = 0;
    for (const LinkEvent& event : events)
      if (const auto* one = std::get_if<Event>(&event)) n += key(*one) == peer;
    return n;
  }

  std::mutex mutex_;  // the wire thread adds while the test waits
  std::condition_variable changed_;
  std::vector<LinkEvent> events_;
};

// A peer with a real link on an ephemeral port of the loopback.
struct LinkPeer {
  static ZmqLinkOptions quick_options(KeyPair own) {
    ZmqLinkOptions options;
    options.keys = own;
    options.name = "tester";
    options.listen = {"tcp://127.0.0.1:0"};
    options.decode.encoded_row_bytes = encoded_row_bytes;
    options.heartbeat = std::chrono::milliseconds(50);
    options.timeout = std::chrono::milliseconds(1500);
    return options;
  }

  explicit LinkPeer(uint64_t seed, std::function<void(ZmqLinkOptions&)> change = nullptr)
      : keys(keys_of(seed)) {
    ZmqLinkOptions options = quick_options(keys);
    if (change) change(options);
    start(std::move(options));
  }
  static KeyPair keys_of(uint64_t seed) {
    SeededRandom seeded(seed);
    return make_key_pair(seeded);
  }
  const PeerKey& key() const { return keys.public_key; }
  void allow(const LinkPeer& other) { link->allow(other.key()); }
  void connect(const LinkPeer& other) { link->connect(other.key(), other.link->endpoints()); }
  void start(ZmqLinkOptions options) {
    ZmqLinkCallbacks callbacks;
    callbacks.event = [this](LinkEvent event) { log.add(std::move(event)); };
    callbacks.admit = [this](const PeerKey& peer, const std::string& name, const PeerKey& ticket) {
      if (admit) admit(peer, name, ticket);
    };
    callbacks.enrolled = [this](const PeerKey&, const std::string& reason) {
      std::lock_guard lock(mutex);
      enrolled = reason;
      changed.notify_all();
    };
    link = std::make_unique<ZmqLink>(std::move(options), clock, random, std::move(callbacks));
  }
  // Shows the ticket; why it was refused, or an empty text.
  std::string enrol(const Ticket& ticket) {
    std::unique_lock lock(mutex);
    enrolled.reset();
    link->enrol(ticket);
    changed.wait_for(lock, std::chrono::seconds(20), [&] { return enrolled.has_value(); });
    return enrolled.value_or("no answer");
  }

  KeyPair keys;
  SystemClock clock;
  SystemRandom random;
  LinkLog log;
  std::function<void(const PeerKey&, const std::string&, const PeerKey&)> admit;
  std::mutex mutex;  // the wire thread tells the end of an enrolment
  std::condition_variable changed;
  std::optional<std::string> enrolled;
  std::unique_ptr<ZmqLink> link;  // the last to be made, the first to go
};

// A step whose rows are a pattern of `seed`.
inline Step step_of(uint64_t number, uint32_t rows, uint32_t width, CodecId codec = CodecId::kF32) {
  Step step;
  step.step = {number};
  step.epoch = {1};
  if (rows == 0) return step;
  step.ranges.push_back({{number}, 1, 0, rows, KernelClass::kMany, AnswerKind::kNothing, 0});
  std::vector<std::byte> bytes(rows * encoded_row_bytes(codec, width));
  uint64_t state = number;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i % 8 == 0) state = mix64(state + i);
    bytes[i] = static_cast<std::byte>(state >> (8 * (i % 8)));
  }
  step.rows = {codec, width, rows, std::make_shared<const std::vector<std::byte>>(std::move(bytes))};
  return step;
}

}  // namespace caravan::test
