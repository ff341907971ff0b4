// The shard store's records, which a damaged disk or another machine may have written: each is read and then
// sound, or refused with an error. The first byte says which record the others, sealed with a right checksum,
// are.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/check.h"
#include "base/error.h"
#include "base/hash.h"
#include "shards/shard_store.h"
#include "shards/store_record.h"
#include "store/memory_bulk.h"
#include "store/memory_store.h"

namespace {

using namespace caravan;

void read_model(const std::string& bytes) {
  const ModelRecord record = decode_model_record(bytes, "fuzz");
  CHECK(record.hashes.size() == record.manifest.groups.size());
  for (const WeightGroup& group : record.manifest.groups)
    for (const Tensor& tensor : group.tensors) {
      CHECK(tensor.extent.file < record.files.size());
      const uint64_t bytes_there = record.files[tensor.extent.file].bytes;
      CHECK(tensor.extent.length <= bytes_there);
      CHECK(tensor.extent.offset <= bytes_there - tensor.extent.length);
      CHECK(tensor.extent.length == tensor.rows * row_bytes(tensor.type, tensor.columns));
    }
  CHECK(encode_model_record(record) == bytes);
}

void open_store(const std::string& bytes) {
  const auto records = std::make_shared<MemoryStore>();
  records->put(std::string("segment/") + std::string(8, '\0'), bytes);
  const ShardStore store(records, std::make_shared<MemoryBulk>(), {});
  const Hash256 zero{};
  std::byte some[16];
  if (store.contains(zero)) store.read(zero, 0, some);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const uint64_t sum = xxh3(std::as_bytes(std::span(bytes)));
  bytes.append(reinterpret_cast<const char*>(&sum), sizeof sum);
  try {
    switch (data[0] % 3) {
      case 0:
        read_model(bytes);
        break;
      case 1:
        CHECK(encode_hash_record(decode_hash_record(bytes, "fuzz")) == bytes);
        break;
      default:
        open_store(bytes);
    }
  } catch (const Error& error) {
    CHECK(!error.message().empty());
  }
  return 0;
}
