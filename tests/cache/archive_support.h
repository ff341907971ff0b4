#pragma once

#include <atomic>
#include <cstddef>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "cache/kv_archive.h"
#include "cache/kv_value.h"
#include "store/memory_bulk.h"
#include "store/memory_store.h"

namespace caravan::test {

// Told by hand; any thread.
class HandClock final : public Clock {
 public:
  Time now() const override { return Time(Duration(now_ns_.load())); }
  int64_t unix_seconds() const override { return 1'700'000'000 + now_ns_.load() / 1'000'000'000; }
  void advance(Duration duration) { now_ns_ += duration.count(); }

 private:
  std::atomic<int64_t> now_ns_{1};
};

inline BlockTag numbered_tag(uint64_t number) {
  BlockTag tag;
  std::memcpy(tag.bytes.data(), &number, sizeof number);
  tag.bytes[15] = 1;
  return tag;
}

inline KvArchiveShape small_shape(uint32_t first_layer = 4,
                                  std::vector<uint64_t> part_bytes = {96, 64, 128}) {
  return {Lineage{{9, 9}}, first_layer, std::move(part_bytes)};
}

// Of a block of small_shape() on disk.
constexpr uint64_t kSmallBlockBytes = 96 + 64 + 128 + 3 * kKvSealBytes;

// What outlives an archive: it may be opened again.
struct ArchiveWorld {
  explicit ArchiveWorld(Bytes most = Bytes{1 << 20}) : limit(most) {}
  std::unique_ptr<KvArchive> open(std::optional<Bytes> day = std::nullopt) {
    return std::make_unique<KvArchive>(values, records, clock,
                                       KvArchiveOptions{limit, day, {}, "the archive", most_blocks});
  }
  HandClock clock;
  std::shared_ptr<MemoryBulk> values = std::make_shared<MemoryBulk>();
  std::shared_ptr<MemoryStore> records = std::make_shared<MemoryStore>();
  Bytes limit;
  size_t most_blocks = KvArchiveIndex::kMostBlocks;
};

// The bytes of a layer of a block: as if computed.
inline std::vector<std::byte> content_of(const BlockTag& tag, uint32_t layer, uint64_t bytes) {
  std::vector<std::byte> out(bytes);
  uint64_t seed = 0;
  std::memcpy(&seed, tag.bytes.data(), sizeof seed);
  for (size_t i = 0; i < bytes; ++i) out[i] = static_cast<std::byte>(mix64(seed * 131 + layer * 17 + i));
  return out;
}

inline std::vector<std::byte> content_of(const BlockTag& tag, const KvArchiveShape& shape) {
  std::vector<std::byte> out;
  for (uint32_t i = 0; i < shape.layers(); ++i)
    for (const std::byte byte : content_of(tag, shape.first_layer + i, shape.part_bytes[i]))
      out.push_back(byte);
  return out;
}

// Blocks first to last of a chain whose numbers go up by one; the handles.
inline std::vector<KvArchive::Handle> write_chain(KvArchive& archive, uint64_t first, uint64_t last,
                                                  BlockTag previous = {},
                                                  const KvArchiveShape& shape = small_shape(),
                                                  bool computed = false) {
  std::vector<std::vector<std::byte>> contents;
  std::vector<KvArchive::Write> writes;
  for (uint64_t number = first; number <= last; ++number) {
    contents.push_back(content_of(numbered_tag(number), shape));
    writes.push_back({numbered_tag(number), previous, contents.back().data(), computed});
    previous = numbered_tag(number);
  }
  return archive.write(shape, writes);
}

// How many blocks of the chain are found.
inline uint32_t found_of_chain(const KvArchive& archive, uint64_t first, uint64_t last,
                               const KvArchiveShape& shape = small_shape()) {
  std::vector<BlockTag> tags;
  for (uint64_t number = first; number <= last; ++number) tags.push_back(numbered_tag(number));
  return archive.find(shape.lineage, shape.first_layer, shape.layers(), tags).blocks;
}

// Whether the block comes back as it was written; false when reading it fails.
inline bool reads_back(KvArchive& archive, const BlockTag& tag, const KvArchiveShape& shape = small_shape()) {
  const KvArchive::Handle block = archive.adopt(shape, tag);
  if (!block) return false;
  // Alone, and those from it on together.
  for (uint32_t i = 0; i < shape.layers(); ++i) {
    std::vector<std::byte> expected;
    for (const size_t count : {size_t{1}, shape.part_bytes.size() - i}) {
      expected.clear();
      for (uint32_t layer = i; layer < i + count; ++layer) {
        const auto content = content_of(tag, shape.first_layer + layer, shape.part_bytes[layer]);
        expected.insert(expected.end(), content.begin(), content.end());
      }
      std::vector<std::byte> to(expected.size());
      const auto parts = std::span(shape.part_bytes).subspan(i, count);
      if (block->read(shape.first_layer + i, parts, to.data()) || to != expected) return false;
    }
  }
  return true;
}

}  // namespace caravan::test
