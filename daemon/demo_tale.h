#pragma once

#include <cstdio>
#include <functional>
#include <string>

#include "base/clock.h"
#include "daemon/head_process.h"

namespace caravan {

// What `demo` shows when its ring is ready: a text that streams through the peers, and a line about its
// speed.
class DemoTale {
 public:
  DemoTale(HeadProcess& head, const Clock& clock) : head_(head), clock_(clock) {}
  // Prints to standard output; `done` is called when the text has ended, whether it worked or not.
  void tell(std::function<void()> done);

 private:
  void on_event(const GenerationEvent& event);

  HeadProcess& head_;
  const Clock& clock_;
  std::function<void()> done_;
  Time start_{};
  Time first_token_{};
};

}  // namespace caravan
