#include "offload/page_reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "base/check.h"
#include "offload/direct_files.h"
#include "offload/read_job.h"
#include "offload/uring_reader.h"

namespace caravan {

namespace {

// Reads pieces on a few threads.
class ThreadReader final : public PageReader {
 public:
  ThreadReader(std::shared_ptr<const Source> source, std::unique_ptr<DirectFiles> files, Done done,
               uint32_t threads)
      : source_(std::move(source)), files_(std::move(files)), done_(std::move(done)) {
    try {
      for (uint32_t i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
    } catch (...) {
      end();
      throw;
    }
  }
  ~ThreadReader() override { end(); }

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
    return std::to_string(threads_.size()) + " threads, " + (files_ ? "direct reads" : source_->describe());
  }

 private:
  void end() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    ready_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void work() {
    for (;;) {
      std::unique_lock lock(mutex_);
      ready_.wait(lock, [&] { return stopping_ || !pieces_.empty(); });
      if (stopping_) return;
      const ReadPiece piece = std::move(pieces_.front());
      pieces_.pop_front();
      lock.unlock();
      std::optional<Error> error = read(piece.run);
      lock.lock();
      if (error && !piece.job->error) piece.job->error = std::move(error);
      const bool last = --piece.job->left == 0;
      lock.unlock();
      if (last) done_(piece.job->id, piece.job->error);
    }
  }

  std::optional<Error> read(const ReadRun& run) const {
    try {
      if (!files_) {
        source_->read(run.file, run.offset, {run.to, static_cast<size_t>(run.needed)});
        return std::nullopt;
      }
      for (uint64_t have = 0; have < run.needed;) {
        const ssize_t got = ::pread(files_->descriptor(run.file), run.to + have, run.length - have,
                                    static_cast<off_t>(run.offset + have));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) fail_read(*source_, run, have, got < 0 ? errno : 0);
        have += static_cast<uint64_t>(got);
      }
      if (!files_->direct(run.file))
        (void)::posix_fadvise(files_->descriptor(run.file), static_cast<off_t>(run.offset),
                              static_cast<off_t>(run.length), POSIX_FADV_DONTNEED);
      return std::nullopt;
    } catch (const Error& error) {
      return error;
    }
  }

  const std::shared_ptr<const Source> source_;
  const std::unique_ptr<DirectFiles> files_;
  const Done done_;
  std::mutex mutex_;  // the queue is shared by its threads
  std::condition_variable ready_;
  std::deque<ReadPiece> pieces_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

std::vector<ReadRun> split(const std::vector<ReadRun>& runs) {
  std::vector<ReadRun> pieces;
  for (const ReadRun& run : runs) {
    CHECK(run.offset % kDirectAlignment == 0u);
    CHECK(run.length % kDirectAlignment == 0u);
    for (uint64_t at = 0; at < run.needed;) {
      // Cut at multiples of the piece size in the file: where the store keeps a chunk, a piece is a chunk.
      const uint64_t until =
          std::min(run.length, (run.offset + at) / kPieceBytes * kPieceBytes + kPieceBytes - run.offset);
      pieces.push_back(
          {run.file, run.offset + at, until - at, std::min(run.needed, until) - at, run.to + at});
      at = until;
    }
  }
  return pieces;
}

void fail_read(const Source& source, const ReadRun& run, uint64_t have, int error_number) {
  const std::string path = source.file_path(run.file).value_or(source.describe());
  if (error_number == 0)
    fail(ErrorCode::kMalformed, "{}: it ends at byte {}, {} bytes before the end of a tensor", path,
         run.offset + have, run.needed - have);
  fail(ErrorCode::kIo, "{}: reading at byte {}: {}", path, run.offset + have, std::strerror(error_number));
}

std::unique_ptr<PageReader> make_page_reader(std::shared_ptr<const Source> source, PageReader::Done done,
                                             PageReaderOptions options) {
  std::unique_ptr<DirectFiles> files = DirectFiles::open(*source);
  if (files && options.allow_uring) {
    std::unique_ptr<PageReader> reader = make_uring_reader(source, files, done, options.pieces_in_flight);
    if (reader) return reader;
  }
  return std::make_unique<ThreadReader>(std::move(source), std::move(files), std::move(done),
                                        std::max(1u, options.pieces_in_flight / 2));
}

}  // namespace caravan
