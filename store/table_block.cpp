#include "store/table_block.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <vector>

#include "base/error.h"

namespace caravan {

namespace {

constexpr std::string_view kPut("\x01\0\0\0\0\0\0\0", 8);
// Each so many entries of a block have their key whole, and stand in the list at its end.
constexpr size_t kRestartInterval = 16;
constexpr size_t kTrailerBytes = 5;  // behind a block: how it is compressed, its checksum
constexpr size_t kMostVarintBytes = 5;
// Of a table whose beginning was used: then where the rest begins. No block begins so.
constexpr std::array<char, 16> kUsedMagic{"caravan used 1\n"};
constexpr uint64_t kPageBytes = 4096;
constexpr uint32_t kMostKeyBytes = 4096;
constexpr uint32_t kMostValueBytes = 64u << 20;

void append_varint(std::string& to, uint32_t value) {
  for (; value >= 128; value >>= 7) to.push_back(static_cast<char>(value | 128));
  to.push_back(static_cast<char>(value));
}

std::optional<uint32_t> take_varint(std::span<const std::byte>& from) {
  uint64_t value = 0;
  for (size_t i = 0; i < std::min(kMostVarintBytes, from.size()); ++i) {
    value |= uint64_t{static_cast<uint8_t>(from[i]) & 127u} << (7 * i);
    if ((from[i] & std::byte{128}) != std::byte{}) continue;
    from = from.subspan(i + 1);
    return value <= UINT32_MAX ? std::optional(static_cast<uint32_t>(value)) : std::nullopt;
  }
  return std::nullopt;
}

class CutTable {
 public:
  explicit CutTable(const std::string& path)
      : path_(path), descriptor_(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK)) {
    struct stat status {};
    if (descriptor_ < 0 || ::fstat(descriptor_, &status) != 0) fail_with(errno);
    if (!S_ISREG(status.st_mode)) fail(ErrorCode::kIo, "{}: no regular file", path_);
    bytes_ = static_cast<uint64_t>(status.st_size);
    is_ours_ = status.st_nlink == 1;
    Used used{};
    if (bytes_ < sizeof used) return;
    read(0, std::as_writable_bytes(std::span(&used, 1)));
    if (used.magic == kUsedMagic) at_ = std::min(used.until, bytes_);
  }
  ~CutTable() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  CutTable(const CutTable&) = delete;
  CutTable& operator=(const CutTable&) = delete;

  // The next value, in value(), with its key in key(); false: there is none.
  bool next() {
    if (!restarts_.empty() && is_block_end()) {
      at_ += 4 * (restarts_.size() + 1) + kTrailerBytes;
      restarts_.clear();
      entries_ = 0;
    }
    if (restarts_.empty()) block_ = at_;
    std::array<std::byte, 3 * kMostVarintBytes> begin{};
    const auto here = std::span(begin).first(std::min<uint64_t>(begin.size(), bytes_ - at_));
    read(at_, here);
    std::span<const std::byte> rest = here;
    const auto shared = take_varint(rest), own = take_varint(rest), value_bytes = take_varint(rest);
    if (!shared || !own || !value_bytes) return false;
    const bool is_restart = entries_ % kRestartInterval == 0;
    if (*shared > key_.size() || (is_restart && *shared > 0)) return false;
    if (*own > kMostKeyBytes || *value_bytes > kMostValueBytes) return false;
    const uint64_t key_at = at_ + (here.size() - rest.size());
    if (uint64_t{*own} + *value_bytes > bytes_ - key_at) return false;
    key_.resize(*shared + size_t{*own});
    read(key_at, std::as_writable_bytes(std::span(key_).subspan(*shared)));
    if (!std::string_view(key_).ends_with(kPut)) return false;
    value_.resize(*value_bytes);
    read(key_at + *own, value_);
    if (is_restart) restarts_.push_back(static_cast<uint32_t>(at_ - block_));
    ++entries_;
    at_ = key_at + *own + *value_bytes;
    return true;
  }
  // What lies before the block of the value that is next, or was last, was used.
  void forget_used() {
    if (!is_ours_ || block_ < kForgottenAtOnce + forgotten_) return;
    const Used used{kUsedMagic, block_};
    const uint64_t until = block_ / kPageBytes * kPageBytes;
    if (::pwrite(descriptor_, &used, sizeof used, 0) != sizeof used) return;  // a full disk: it stays
    (void)::fallocate(descriptor_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, kPageBytes,
                      static_cast<off_t>(until - kPageBytes));
    forgotten_ = block_;
  }
  std::string_view key() const { return std::string_view(key_).substr(0, key_.size() - kPut.size()); }
  std::span<const std::byte> value() const { return value_; }

 private:
  // The list of where keys are whole, and its length.
  bool is_block_end() const {
    std::vector<std::byte> expected;
    const auto append = [&](uint32_t number) {
      for (int i = 0; i < 4; ++i) expected.push_back(static_cast<std::byte>(number >> (8 * i)));
    };
    for (const uint32_t restart : restarts_) append(restart);
    append(static_cast<uint32_t>(restarts_.size()));
    if (expected.size() + kTrailerBytes > bytes_ - at_) return false;
    std::vector<std::byte> found(expected.size());
    read(at_, found);
    return found == expected;
  }

  void read(uint64_t at, std::span<std::byte> out) const {
    while (!out.empty()) {
      const ssize_t got = ::pread(descriptor_, out.data(), out.size(), static_cast<off_t>(at));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) fail_with(got < 0 ? errno : EIO);
      at += static_cast<uint64_t>(got);
      out = out.subspan(static_cast<size_t>(got));
    }
  }
  [[noreturn]] void fail_with(int error) const {
    fail(ErrorCode::kIo, "{}: {}", path_, std::strerror(error));
  }

  struct Used {
    std::array<char, 16> magic;
    uint64_t until;
  };
  static constexpr uint64_t kForgottenAtOnce = 256u << 10;

  const std::string path_;
  const int descriptor_;
  uint64_t bytes_ = 0;
  bool is_ours_ = false;
  uint64_t forgotten_ = 0;          // up to there
  uint64_t at_ = 0, block_ = 0;     // in the file
  size_t entries_ = 0;              // of the block so far
  std::vector<uint32_t> restarts_;  // of the block so far, by offset in it
  std::string key_;                 // with its sequence number and kind
  std::vector<std::byte> value_;
};

}  // namespace

std::string block_begin(std::string_view key, uint32_t value_bytes) {
  std::string begin;
  append_varint(begin, 0);
  append_varint(begin, static_cast<uint32_t>(key.size() + kPut.size()));
  append_varint(begin, value_bytes);
  return begin.append(key).append(kPut);
}

std::string read_cut_table(
    const std::string& path,
    const std::function<void(std::string_view key, std::span<const std::byte> value)>& use) {
  std::optional<CutTable> table;
  const auto next = [&] {
    if (!table) table.emplace(path);
    return table->next();
  };
  for (;;) {
    try {
      if (!next()) return "";
    } catch (const Error& error) {
      return error.message();
    }
    table->forget_used();
    use(table->key(), table->value());
  }
}

}  // namespace caravan
