#pragma once

#include <csignal>

namespace caravan {

// Ctrl-C (and a plain kill) while long work runs without an event loop: the signals are held back for as long
// as this lives and asked for. To be made before any thread is. Main thread.
class Interruption {
 public:
  Interruption();
  ~Interruption();
  Interruption(const Interruption&) = delete;
  Interruption& operator=(const Interruption&) = delete;
  // True once one has come.
  bool came();

 private:
  sigset_t signals_;
  sigset_t before_;
  bool came_ = false;
};

}  // namespace caravan
