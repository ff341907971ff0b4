#include "offload/uring_reader.h"

#include <fcntl.h>
#include <liburing.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/check.h"
#include "offload/read_job.h"

namespace caravan {

namespace {

constexpr std::chrono::milliseconds kAskAgain{1};

class UringReader final : public PageReader {
 public:
  UringReader(std::shared_ptr<const Source> source, std::unique_ptr<DirectFiles> files, Done done,
              uint32_t depth, io_uring ring)
      : source_(std::move(source)),
        files_(std::move(files)),
        done_(std::move(done)),
        ring_(ring),
        slots_(depth),
        thread_([this] { work(); }) {}
  ~UringReader() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    ready_.notify_all();
    thread_.join();
    io_uring_queue_exit(&ring_);
  }

  void submit(uint64_t job, std::vector<ReadRun> runs) override {
    auto shared = std::make_shared<ReadJob>(job);
    std::vector<ReadRun> pieces = split(runs);
    CHECK(!pieces.empty());
    shared->left = pieces.size();
    {
      const std::lock_guard lock(mutex_);
      for (const ReadRun& piece : pieces) pieces_.push_back({shared, piece});
    }
    ready_.notify_all();
  }
  std::string describe() const override {
    return "io_uring, " + std::to_string(slots_.size()) + " direct reads in flight";
  }

 private:
  struct Slot {
    ReadPiece piece;
    uint64_t have = 0;
    bool busy = false;
  };

  // With reads in flight a new job waits at most for the next of them to end.
  void work() {
    for (;;) {
      {
        std::unique_lock lock(mutex_);
        ready_.wait(lock, [&] { return stopping_ || in_flight_ > 0 || !pieces_.empty(); });
        if (stopping_) pieces_.clear();
        if (stopping_ && in_flight_ == 0) return;
        fill_slots();
      }
      io_uring_submit(&ring_);
      // The system lacks what it takes, and none of ours will end and give some back: it is asked again.
      if (io_uring_sq_ready(&ring_) == in_flight_) {
        std::this_thread::sleep_for(kAskAgain);
        continue;
      }
      io_uring_cqe* entry = nullptr;
      if (io_uring_wait_cqe(&ring_, &entry) != 0) continue;
      Slot& slot = *static_cast<Slot*>(io_uring_cqe_get_data(entry));
      const int result = entry->res;
      io_uring_cqe_seen(&ring_, entry);
      take_result(slot, result);
    }
  }

  void fill_slots() {
    for (Slot& slot : slots_) {
      if (pieces_.empty()) return;
      if (slot.busy) continue;
      slot = {std::move(pieces_.front()), 0, true};
      pieces_.pop_front();
      ++in_flight_;
      queue(slot);
    }
  }

  void queue(Slot& slot) {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    CHECK(entry != nullptr);  // as many entries as slots
    const ReadRun& run = slot.piece.run;
    io_uring_prep_read(entry, files_->descriptor(run.file), run.to + slot.have,
                       static_cast<unsigned>(run.length - slot.have), run.offset + slot.have);
    io_uring_sqe_set_data(entry, &slot);
  }

  void take_result(Slot& slot, int result) {
    const ReadRun& run = slot.piece.run;
    if (result == -EINTR || result == -EAGAIN) return queue(slot);
    ReadJob& job = *slot.piece.job;
    if (result > 0) slot.have += static_cast<uint64_t>(result);
    if (result > 0 && slot.have < run.needed) return queue(slot);
    try {
      if (slot.have < run.needed) fail_read(*source_, run, slot.have, -result);
      if (!files_->direct(run.file))
        (void)::posix_fadvise(files_->descriptor(run.file), static_cast<off_t>(run.offset),
                              static_cast<off_t>(run.length), POSIX_FADV_DONTNEED);
    } catch (const Error& error) {
      if (!job.error) job.error = error;
    }
    const std::shared_ptr<ReadJob> ended = job.left == 1 ? slot.piece.job : nullptr;
    --job.left;
    slot.busy = false;
    slot.piece.job.reset();
    --in_flight_;
    if (ended) done_(ended->id, ended->error);
  }

  const std::shared_ptr<const Source> source_;
  const std::unique_ptr<DirectFiles> files_;
  const Done done_;
  std::mutex mutex_;  // jobs come from any thread
  std::condition_variable ready_;
  std::deque<ReadPiece> pieces_;
  bool stopping_ = false;
  // Below: the reader's thread alone, but for in_flight_'s first look under the lock.
  io_uring ring_;
  std::vector<Slot> slots_;
  uint32_t in_flight_ = 0;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<PageReader> make_uring_reader(std::shared_ptr<const Source> source,
                                              std::unique_ptr<DirectFiles>& files, PageReader::Done done,
                                              uint32_t pieces_in_flight) {
  io_uring ring{};
  if (io_uring_queue_init(pieces_in_flight, &ring, 0) != 0) return nullptr;
  try {
    return std::make_unique<UringReader>(std::move(source), std::move(files), std::move(done),
                                         pieces_in_flight, ring);
  } catch (...) {
    io_uring_queue_exit(&ring);  // no thread is to be had
    throw;
  }
}

}  // namespace caravan
