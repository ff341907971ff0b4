#include "store/part_reader.h"

#include <liburing.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/check.h"

namespace caravan {

namespace {

// Four keep the disk no busier than two do, and cost the processor more.
constexpr size_t kParts = 2;
constexpr uint64_t kAlignment = 64u << 10;        // of where the second begins
constexpr uint64_t kLeastPartBytes = 256u << 10;  // a smaller read costs more than it saves
constexpr useconds_t kLookAgainUs = 100;

}  // namespace

// Two entries of the system's, and whether it still takes requests.
struct PartReader::Ring {
  io_uring ring{};
  bool given_up = false;
  ~Ring() { io_uring_queue_exit(&ring); }
  static std::unique_ptr<Ring> open() {
    io_uring ring{};
    if (io_uring_queue_init(kParts, &ring, 0) != 0) return nullptr;
    return std::unique_ptr<Ring>(new Ring{ring});
  }
};

// The parts of one run, under way together.
class PartReader::Run {
 public:
  Run(Ring& ring, int descriptor, uint64_t offset, std::span<std::byte> to, uint64_t needed)
      : ring_(ring), descriptor_(descriptor), offset_(offset), to_(to), needed_(needed) {
    const uint64_t half = to.size() / kParts / kAlignment * kAlignment;
    parts_ = {Part{0, half}, Part{half, to.size()}};
    for (Part& part : parts_) queue(part);
    io_uring_submit(&ring_.ring);  // what it refuses is met by wait()
  }
  // What is under way writes into memory that is someone else's afterwards.
  ~Run() {
    failed_ = true;
    while (under_way_ > 0) wait();
  }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  bool failed() const { return failed_; }
  // Bytes of the beginning that are there.
  uint64_t have() const {
    const auto& [first, second] = parts_;
    return std::min(first.have < first.end ? first.have : second.have, needed_);
  }
  // Until a read ends, or the ring is given up.
  void wait() {
    const int submitted = io_uring_submit_and_wait(&ring_.ring, 1);
    // Only what waits is interrupted.
    const bool refused = submitted < 0 && (submitted != -EINTR || io_uring_sq_ready(&ring_.ring) > 0);
    if (refused)
      give_up();
    else
      take();
  }

 private:
  struct Part {
    uint64_t have = 0, end = 0;  // from the beginning of the run
  };
  void queue(Part& part) {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_.ring);
    CHECK(entry != nullptr);  // as many entries as parts
    io_uring_prep_read(entry, descriptor_, to_.data() + part.have,
                       static_cast<unsigned>(part.end - part.have), offset_ + part.have);
    io_uring_sqe_set_data(entry, &part);
    ++under_way_;
  }
  // What the system has taken ends by itself, and is waited for without it. What it has not taken lies in the
  // ring, which nobody submits any more.
  void give_up() {
    ring_.given_up = true;
    under_way_ -= io_uring_sq_ready(&ring_.ring);
    while (under_way_ > 0)
      if (!take()) ::usleep(kLookAgainUs);
  }
  bool take() {
    io_uring_cqe* entry = nullptr;
    if (io_uring_peek_cqe(&ring_.ring, &entry) != 0) return false;
    Part& part = *static_cast<Part*>(io_uring_cqe_get_data(entry));
    const int result = entry->res;
    io_uring_cqe_seen(&ring_.ring, entry);
    --under_way_;
    if (result > 0) part.have += static_cast<uint64_t>(result);
    if (result <= 0 && result != -EINTR && result != -EAGAIN) failed_ = true;
    if (!failed_ && !ring_.given_up && part.have < std::min(part.end, needed_)) queue(part);
    return true;
  }

  Ring& ring_;
  const int descriptor_;
  const uint64_t offset_;
  const std::span<std::byte> to_;
  const uint64_t needed_;
  std::array<Part, kParts> parts_;
  size_t under_way_ = 0;
  bool failed_ = false;
};

PartReader::PartReader() : ring_(Ring::open()) {}
PartReader::~PartReader() = default;

bool PartReader::read(int descriptor, uint64_t offset, std::span<std::byte> to, uint64_t needed,
                      const Grown& grown) {
  if (ring_ && ring_->given_up) ring_.reset();
  uint64_t have = 0;
  if (ring_ && to.size() >= kParts * kLeastPartBytes) {
    Run run(*ring_, descriptor, offset, to, needed);
    while (have < needed && !ring_->given_up) {
      run.wait();
      if (run.failed()) return false;
      if (run.have() == have) continue;
      have = run.have();
      grown(have);
    }
  }
  return read_rest(descriptor, offset, to, needed, have, grown);
}

// From `have` on, in turn.
bool PartReader::read_rest(int descriptor, uint64_t offset, std::span<std::byte> to, uint64_t needed,
                           uint64_t have, const Grown& grown) const {
  while (have < needed) {
    const ssize_t got =
        ::pread(descriptor, to.data() + have, to.size() - have, static_cast<off_t>(offset + have));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    have += static_cast<uint64_t>(got);
    grown(std::min(have, needed));
  }
  return true;
}

}  // namespace caravan
