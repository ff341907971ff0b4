#include "shards/chunk_slots.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "base/error.h"

namespace caravan {

namespace {

// One that is being put together, two that their table may not have taken to the disk, and the last one of a
// table that is on its way there.
constexpr size_t kSlots = 4;
constexpr size_t kHeaderBytes = 4096;  // of a slot: its bytes are aligned to pages
constexpr char kMagic[16] = "caravan chunk 1";

size_t slot_bytes(size_t bytes) {
  return kHeaderBytes + (bytes + kHeaderBytes - 1) / kHeaderBytes * kHeaderBytes;
}

}  // namespace

struct ChunkSlots::Header {
  char magic[16];
  uint8_t group[32];
  uint32_t chunk;
  uint32_t bytes;  // 0: none
};

ChunkSlots::ChunkSlots(const std::string& path, size_t bytes)
    : count_(path.empty() ? 1 : kSlots), bytes_(slot_bytes(bytes)) {
  const size_t all = count_ * bytes_;
  if (path.empty()) {
    own_.resize(all);
    data_ = own_.data();
    return;
  }
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) fail(ErrorCode::kIo, "{}: {}", path, std::strerror(errno));
  // A page that the disk has no room for would end the process when it is touched.
  int error = ::ftruncate(file, static_cast<off_t>(all)) == 0 ? 0 : errno;
  if (error == 0) error = ::posix_fallocate(file, 0, static_cast<off_t>(all));
  void* mapped = nullptr;
  if (error == 0) mapped = ::mmap(nullptr, all, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (mapped == MAP_FAILED) error = errno;
  if (error != 0) (void)!::ftruncate(file, 0);  // what room it got
  ::close(file);
  if (error != 0) fail(ErrorCode::kIo, "{}: {}", path, std::strerror(error));
  data_ = static_cast<std::byte*>(mapped);
  for (size_t slot = 0; slot < count_; ++slot) header(slot) = {};
}

ChunkSlots::~ChunkSlots() {
  if (own_.empty()) ::munmap(data_, count_ * bytes_);
}

ChunkSlots::Header& ChunkSlots::header(size_t slot) const {
  return *reinterpret_cast<Header*>(data_ + slot * bytes_);
}

std::span<std::byte> ChunkSlots::now() const {
  return {data_ + now_ * bytes_ + kHeaderBytes, bytes_ - kHeaderBytes};
}

void ChunkSlots::note(const Hash256& group, uint32_t chunk, size_t bytes) const {
  Header& to = header(now_);
  std::atomic_signal_fence(std::memory_order_seq_cst);  // the bytes are there before they count
  std::memcpy(to.group, group.bytes.data(), sizeof to.group);
  to.chunk = chunk;
  std::memcpy(to.magic, kMagic, sizeof kMagic);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  to.bytes = static_cast<uint32_t>(bytes);
}

void ChunkSlots::next() {
  if (count_ == 1) return;
  last_ = now_;
  do now_ = (now_ + 1) % count_;
  while (now_ == last_ || now_ == held_);
  header(now_).bytes = 0;
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

void ChunkSlots::hold() {
  held_ = last_;
}

void ChunkSlots::landed() {
  held_.reset();
}

void ChunkSlots::read(const std::string& path, const Use& use) {
  std::error_code error;
  const uint64_t all = std::filesystem::file_size(path, error), bytes = all / kSlots;
  if (error || all % kSlots != 0 || bytes <= kHeaderBytes) return;
  std::ifstream file(path, std::ios::binary);
  for (size_t slot = 0; slot < kSlots; ++slot) {
    Header header{};
    file.seekg(static_cast<std::streamoff>(slot * bytes));
    if (!file.read(reinterpret_cast<char*>(&header), sizeof header)) return;
    if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0 || header.bytes == 0 ||
        header.bytes > bytes - kHeaderBytes)
      continue;
    Hash256 group;
    std::memcpy(group.bytes.data(), header.group, sizeof header.group);
    std::vector<std::byte> content(header.bytes);
    file.seekg(static_cast<std::streamoff>(slot * bytes + kHeaderBytes));
    if (!file.read(reinterpret_cast<char*>(content.data()), header.bytes)) return;
    use(group, header.chunk, content, slot);
  }
}

void ChunkSlots::forget(const std::string& path, size_t slot) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (file < 0) return;
  std::error_code error;
  const auto bytes = static_cast<off_t>(std::filesystem::file_size(path, error) / kSlots);
  if (!error)
    (void)::fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(slot) * bytes,
                      bytes);
  ::close(file);
}

}  // namespace caravan
