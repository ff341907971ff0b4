#include "bench/store_bench.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>

#include "base/error.h"
#include "bench/cpu_seconds.h"
#include "shards/shard_store.h"
#include "shards/store_import.h"
#include "store/rocks_store.h"

namespace caravan {

namespace {

constexpr uint64_t kRunBytes = 1u << 20;
constexpr size_t kAlignment = 4096;

struct FreeAligned {
  void operator()(std::byte* data) const { std::free(data); }
};
using AlignedBuffer = std::unique_ptr<std::byte, FreeAligned>;

AlignedBuffer make_buffer() {
  return AlignedBuffer(static_cast<std::byte*>(std::aligned_alloc(kAlignment, kRunBytes)));
}

struct Rate {
  double bytes_s = 0;
  double cpu_s_per_gb = 0;
};

// Readers take runs by number until none is left; `read` returns the bytes of a run.
using ReadRun = std::function<uint64_t(uint64_t run, std::span<std::byte> buffer)>;

Rate measure(const Clock& clock, uint32_t readers, uint64_t runs, const ReadRun& read) {
  std::atomic<uint64_t> next{0}, bytes{0};
  std::atomic<bool> failed{false};
  const double cpu = cpu_seconds();
  const Time begun = clock.now();
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < readers; ++i)
    threads.emplace_back([&] {
      const AlignedBuffer buffer = make_buffer();
      try {
        for (uint64_t run; (run = next.fetch_add(1)) < runs;) bytes += read(run, {buffer.get(), kRunBytes});
      } catch (const Error&) {
        failed = true;
      }
    });
  for (std::thread& thread : threads) thread.join();
  if (failed) fail(ErrorCode::kIo, "a read of the bench failed");
  const double gigabytes = static_cast<double>(bytes) * 1e-9;
  return {static_cast<double>(bytes) / seconds(clock.now() - begun), (cpu_seconds() - cpu) / gigabytes};
}

class RawFile {
 public:
  explicit RawFile(const std::string& path)
      : path_(path), descriptor_(::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC)) {
    if (descriptor_ < 0) fail(ErrorCode::kIo, "{}: cannot be read directly: {}", path, std::strerror(errno));
    bytes_ = static_cast<uint64_t>(::lseek(descriptor_, 0, SEEK_END));
  }
  ~RawFile() { ::close(descriptor_); }
  RawFile(const RawFile&) = delete;
  RawFile& operator=(const RawFile&) = delete;
  uint64_t runs() const { return bytes_ / kRunBytes; }
  uint64_t read(uint64_t run, std::span<std::byte> buffer) const {
    const auto count =
        ::pread(descriptor_, buffer.data(), buffer.size(), static_cast<off_t>(run * kRunBytes));
    if (count < 0) fail(ErrorCode::kIo, "{}: {}", path_, std::strerror(errno));
    return static_cast<uint64_t>(count);
  }

 private:
  const std::string path_;
  const int descriptor_;
  uint64_t bytes_ = 0;
};

// Where each run of the stored groups begins.
struct StoredRun {
  Hash256 group;
  uint64_t offset = 0;
  uint64_t length = 0;
};

std::vector<StoredRun> runs_of(const ModelRecord& record) {
  std::vector<StoredRun> runs;
  for (size_t i = 0; i < record.hashes.size(); ++i) {
    const uint64_t bytes = record.manifest.groups[i].bytes().count;
    for (uint64_t offset = 0; offset < bytes; offset += kRunBytes)
      runs.push_back({record.hashes[i], offset, std::min(kRunBytes, bytes - offset)});
  }
  return runs;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

StoreRate measure_readers(const Clock& clock, const RawFile& raw, const ShardStore& store,
                          const std::vector<StoredRun>& runs, uint32_t readers, uint32_t rounds) {
  std::vector<double> raw_rates, raw_cpu, store_rates, store_cpu;
  for (uint32_t round = 0; round < rounds; ++round) {
    const Rate file = measure(clock, readers, raw.runs(), [&](uint64_t run, std::span<std::byte> buffer) {
      return raw.read(run, buffer);
    });
    const Rate stored = measure(clock, readers, runs.size(), [&](uint64_t run, std::span<std::byte> buffer) {
      store.read(runs[run].group, runs[run].offset, buffer.first(runs[run].length));
      return runs[run].length;
    });
    raw_rates.push_back(file.bytes_s);
    raw_cpu.push_back(file.cpu_s_per_gb);
    store_rates.push_back(stored.bytes_s);
    store_cpu.push_back(stored.cpu_s_per_gb);
  }
  return {readers, median(raw_rates), median(raw_cpu), median(store_rates), median(store_cpu)};
}

}  // namespace

StoreBenchResult run_store_bench(const std::string& model, const std::string& folder,
                                 const StoreBenchOptions& options, const Clock& clock) {
  RocksStore rocks(folder, {ShardStore::kRecordsFamily, ShardStore::kBulkFamily});
  ShardStore store(rocks.family(ShardStore::kRecordsFamily), rocks.bulk(ShardStore::kBulkFamily),
                   {.name = folder});
  const Manifest manifest = read_manifest(model);
  const double cpu = cpu_seconds();
  const Time begun = clock.now();
  const ModelRecord record = import_model(store, manifest, {.copy = true}).record;
  StoreBenchResult result;
  result.bytes = content_bytes(manifest);
  const auto bytes = static_cast<double>(result.bytes);
  result.import_bytes_s = bytes / seconds(clock.now() - begun);
  result.import_cpu_s_per_gb = (cpu_seconds() - cpu) / (bytes * 1e-9);
  const RawFile raw(model);
  const std::vector<StoredRun> runs = runs_of(record);
  for (const uint32_t readers : options.readers)
    result.rates.push_back(measure_readers(clock, raw, store, runs, readers, options.rounds));
  return result;
}

}  // namespace caravan
