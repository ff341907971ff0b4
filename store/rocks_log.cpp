// What goes into a store's log, and what must not once it is torn.
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/write_batch.h>
#include <sys/statvfs.h>

#include <array>
#include <cstdarg>
#include <cstdio>
#include <string>

#include "base/bytes.h"
#include "base/error.h"
#include "base/log.h"
#include "store/rocks_state.h"

namespace caravan {

namespace {

// A memory table and what is beside it.
constexpr uint64_t kLeastRoom = 1u << 20;

class ToOurLog final : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char* format, va_list arguments) override {
    std::array<char, 512> line{};
    std::vsnprintf(line.data(), line.size(), format, arguments);
    log_debug("store_says text=\"{}\"", line.data());
  }
};

}  // namespace

std::shared_ptr<rocksdb::Logger> log_to_ours() {
  return std::make_shared<ToOurLog>();
}

bool has_room(const std::string& path, Bytes more) {
  struct statvfs disk {};
  return ::statvfs(path.c_str(), &disk) != 0 ||
         uint64_t{disk.f_bavail} * disk.f_frsize >= kLeastRoom + more.count;
}

void require_room(const std::string& path, Bytes more) {
  if (!has_room(path, more))
    fail(ErrorCode::kIo,
         "the disk of the store {} is full, it has less than {} left; what it held before is kept. Free some "
         "of "
         "it: with 2 MiB caravan rm works, too",
         path, to_string(Bytes{kLeastRoom + more.count}));
}

void write_to_log(RocksStore::State& state, rocksdb::WriteBatch& batch) {
  if (state.log_is_torn)
    fail(ErrorCode::kIo,
         "the store {} takes no more from this process, because the disk refused what was written before; "
         "what it held is kept: make room, and start again",
         state.path);
  require_room(state.path);
  rocksdb::WriteOptions synced;
  synced.sync = true;
  const auto status = whole([&] { return state.database->Write(synced, &batch); });
  if (status.ok()) return;
  state.log_is_torn = true;
  fail_status(state.path, status);
}

}  // namespace caravan
