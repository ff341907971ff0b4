#include "daemon/calibrate_disk.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/random.h"
#include "base/source.h"
#include "cache/kv_frames.h"
#include "compute/cpu/thread_pool.h"
#include "offload/page_reader.h"
#include "offload/read_job.h"
#include "offload/read_rate.h"

namespace caravan {

namespace {

constexpr uint64_t kAlignment = 4096;
constexpr uint64_t kRunBytes = 8u << 20;  // a weight group's, about
constexpr uint64_t kJumble = 0x9e3779b1;  // a prime

// Memory for direct reads.
class AlignedBuffer {
 public:
  explicit AlignedBuffer(uint64_t bytes)
      : bytes_(bytes), data_(static_cast<std::byte*>(std::aligned_alloc(kAlignment, bytes))) {
    if (!data_) fail(ErrorCode::kOutOfMemory, "the system has no {} of memory left", to_string(Bytes{bytes}));
  }
  ~AlignedBuffer() { std::free(data_); }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  std::span<std::byte> span() const { return {data_, bytes_}; }

 private:
  const uint64_t bytes_;
  std::byte* const data_;
};

// False at an error, with errno set.
bool read_whole(int descriptor, uint64_t offset, std::span<std::byte> out) {
  while (!out.empty()) {
    const ssize_t got = ::pread(descriptor, out.data(), out.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    offset += static_cast<uint64_t>(got);
    out = out.subspan(static_cast<size_t>(got));
  }
  return true;
}

[[noreturn]] void fail_io(const std::string& path, const char* what) {
  fail(ErrorCode::kIo, "{}: {}: {}", path, what, std::strerror(errno));
}

// A file without a name, where the file system can; else one whose name is taken away at once.
int open_nameless(const std::string& folder) {
  int descriptor = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (descriptor >= 0) return descriptor;
  std::string name = folder + "/calibration.partial-XXXXXX";
  descriptor = ::mkstemp(name.data());
  if (descriptor < 0) fail_io(folder, "no file can be made to measure the disk with");
  ::unlink(name.c_str());
  return descriptor;
}

}  // namespace

DiskProbe::DiskProbe(DiskProbe&& other) noexcept
    : clock_(other.clock_),
      path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      bytes_(other.bytes_),
      direct_(other.direct_) {}

DiskProbe::~DiskProbe() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void DiskProbe::set_direct() {
  const int flags = ::fcntl(descriptor_, F_GETFL);
  direct_ = flags >= 0 && ::fcntl(descriptor_, F_SETFL, flags | O_DIRECT) == 0;
  if (!direct_) return;
  // Some file systems take the flag and refuse the read.
  const AlignedBuffer buffer(kAlignment);
  if (::pread(descriptor_, buffer.span().data(), kAlignment, 0) < 0) {
    ::fcntl(descriptor_, F_SETFL, flags);
    direct_ = false;
  }
}

DiskProbe DiskProbe::open_file(const Clock& clock, const std::string& path) {
  DiskProbe probe(clock, path);
  probe.descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (probe.descriptor_ < 0)
    fail(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "{}: {}", path, std::strerror(errno));
  struct stat status {};
  if (::fstat(probe.descriptor_, &status) != 0) fail_io(path, "its size cannot be read");
  probe.bytes_ = static_cast<uint64_t>(status.st_size);
  if (probe.bytes_ < kPieceBytes)
    fail(ErrorCode::kInvalidArgument, "{}: too small to measure a disk with", path);
  probe.set_direct();
  return probe;
}

DiskProbe DiskProbe::make_scratch(const Clock& clock, const std::string& folder, uint64_t scratch_bytes) {
  constexpr uint64_t kPiece = 4u << 20;
  DiskProbe probe(clock, folder);
  probe.descriptor_ = open_nameless(folder);
  probe.set_direct();
  struct statvfs disk {};
  if (::fstatvfs(probe.descriptor_, &disk) == 0)
    scratch_bytes = std::min<uint64_t>(scratch_bytes, uint64_t{disk.f_bavail} * disk.f_frsize / 4);
  scratch_bytes = std::max(kPiece, scratch_bytes / kPiece * kPiece);
  const AlignedBuffer buffer(kPiece);
  // Bytes that no disk can leave out: a different pattern in every block.
  SeededRandom random(1);
  random.fill({reinterpret_cast<uint8_t*>(buffer.span().data()), kPiece});
  while (probe.bytes_ < scratch_bytes) {
    for (uint64_t i = 0; i < kPiece; i += 512) std::memcpy(buffer.span().data() + i, &probe.bytes_, 8);
    const ssize_t put =
        ::pwrite(probe.descriptor_, buffer.span().data(), kPiece, static_cast<off_t>(probe.bytes_));
    if (put < 0 && errno == EINTR) continue;
    if (put != static_cast<ssize_t>(kPiece)) {
      if (put >= 0) errno = ENOSPC;
      fail_io(folder, "no file can be written to measure the disk with");
    }
    probe.bytes_ += kPiece;
  }
  ::fsync(probe.descriptor_);
  return probe;
}

void DiskProbe::forget() const {
  if (!direct_) (void)::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_DONTNEED);
}

double DiskProbe::rate(double lasting) const {
  forget();
  const uint64_t size = std::min(kRunBytes, bytes_ / kAlignment * kAlignment);
  const uint64_t places = bytes_ / size;
  std::vector<Extent> extents;
  // In a jumbled order, so that no read-ahead of a device helps; each place once before any again.
  for (uint64_t i = 0; i < places; ++i) extents.push_back({0, i * kJumble % places * size, size});
  // Through the descriptor, because a scratch file has no name.
  const auto source =
      std::make_shared<FileSource>(std::vector<std::string>{"/proc/self/fd/" + std::to_string(descriptor_)});
  return read_rate(source, extents, *clock_, lasting).rate;
}

// As a cache's readers do: a run of blocks at a time, each in its own read, summed and copied to its place.
DiskRate DiskProbe::kv_rate(double lasting) const {
  const uint32_t readers = KvSpill().readers;
  const uint64_t size = std::min(KvFrames::kMostRunBytes, bytes_ / kAlignment * kAlignment);
  const uint64_t places = bytes_ / size;
  std::vector<std::unique_ptr<AlignedBuffer>> buffers;
  for (uint32_t i = 0; i < 2 * readers; ++i) {
    buffers.push_back(std::make_unique<AlignedBuffer>(size));
    std::memset(buffers.back()->span().data(), 0, size);
  }
  std::atomic<uint64_t> begun = 0, read = 0, sums = 0;
  std::atomic<int> problem = 0;
  cpu::ThreadPool pool(readers);
  forget();
  const Time start = clock_->now();
  pool.parallel_for(readers, 1, [&](uint64_t first, uint64_t, uint32_t) {
    const std::span<std::byte> from = buffers[2 * first]->span(), to = buffers[2 * first + 1]->span();
    while (problem == 0 && seconds(clock_->now() - start) < lasting) {
      if (!read_whole(descriptor_, begun++ * kJumble % places * size, from)) {
        problem = errno;
        return;
      }
      sums ^= xxh3(from);
      std::memcpy(to.data(), from.data(), size);
      read += size;
    }
  });
  const double elapsed = seconds(clock_->now() - start);
  errno = problem;
  if (errno != 0 || read == 0) fail_io(path_, "cannot be read");
  return {size, readers, static_cast<double>(read) / elapsed};
}

double DiskProbe::small_read() const {
  constexpr int kReads = 33;
  const AlignedBuffer buffer(kAlignment);
  SeededRandom random(2);
  std::vector<double> times;
  forget();
  for (int i = 0; i < kReads; ++i) {
    const uint64_t place = random.below(bytes_ / kAlignment);
    const Time start = clock_->now();
    if (!read_whole(descriptor_, place * kAlignment, buffer.span())) fail_io(path_, "cannot be read");
    times.push_back(seconds(clock_->now() - start));
  }
  std::nth_element(times.begin(), times.begin() + kReads / 2, times.end());
  return times[kReads / 2];
}

void DiskProbe::measure(Measurements& measurements, double seconds_each) const {
  measurements.disk = {{kPieceBytes, PageReaderOptions().pieces_in_flight, rate(seconds_each)}};
  measurements.kv = kv_rate(seconds_each);
  measurements.small_read_seconds = small_read();
  measurements.direct = direct_;
}

}  // namespace caravan
