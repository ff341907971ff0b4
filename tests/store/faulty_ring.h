#pragma once

// What this test program is told of io_uring. One at a time, from its making on.
namespace caravan::test {

class FaultyRing {
 public:
  enum class Fault {
    kRefuses,      // with EAGAIN, and has taken nothing
    kInterrupts,   // with EINTR for good, and has taken nothing
    kTakesAndLies  // it takes what it is given, and says that it has no such descriptor
  };
  // The first `good` calls are as they should be.
  FaultyRing(Fault fault, int good);
  ~FaultyRing();
  FaultyRing(const FaultyRing&) = delete;
  FaultyRing& operator=(const FaultyRing&) = delete;
  static int calls();
};

}  // namespace caravan::test
