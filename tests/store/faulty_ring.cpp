#include "tests/store/faulty_ring.h"

#include <dlfcn.h>

#include <atomic>
#include <cerrno>

struct io_uring;

namespace caravan::test {

namespace {

constexpr int kNoFault = -1;
std::atomic<int> fault_now{kNoFault}, good_calls{0}, calls_so_far{0};

// What the caller is told, unless the call is a good one.
template <class Call>
int answer(Call&& call) {
  const int number = calls_so_far++;
  if (fault_now == kNoFault || number < good_calls) return call(false);
  if (fault_now == static_cast<int>(FaultyRing::Fault::kRefuses)) return -EAGAIN;
  if (fault_now == static_cast<int>(FaultyRing::Fault::kInterrupts)) return -EINTR;
  call(true);
  return -EBADF;
}

}  // namespace

FaultyRing::FaultyRing(Fault fault, int good) {
  calls_so_far = 0;
  good_calls = good;
  fault_now = static_cast<int>(fault);
}

FaultyRing::~FaultyRing() {
  fault_now = kNoFault;
}

int FaultyRing::calls() {
  return calls_so_far;
}

}  // namespace caravan::test

namespace {

int submit(io_uring* ring) {
  using Submit = int (*)(io_uring*);
  static const auto real = reinterpret_cast<Submit>(::dlsym(RTLD_NEXT, "io_uring_submit"));
  return real(ring);
}

int submit_and_wait(io_uring* ring, unsigned count) {
  using SubmitAndWait = int (*)(io_uring*, unsigned);
  static const auto real = reinterpret_cast<SubmitAndWait>(::dlsym(RTLD_NEXT, "io_uring_submit_and_wait"));
  return real(ring, count);
}

}  // namespace

// In the place of the library's.
extern "C" __attribute__((visibility("default"))) int io_uring_submit(io_uring* ring) {
  return caravan::test::answer([&](bool) { return submit(ring); });
}

extern "C" __attribute__((visibility("default"))) int io_uring_submit_and_wait(io_uring* ring,
                                                                               unsigned count) {
  return caravan::test::answer([&](bool lies) { return lies ? submit(ring) : submit_and_wait(ring, count); });
}
