#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/ids.h"

// Inside shards/: where chunks are put together before a table of the store takes them.
namespace caravan {

// A few of them, in turn. With a path they lie in a file that the process shares with the system, so that a
// kill loses no byte of them: tables take a chunk to the disk only with the next one.
class ChunkSlots {
 public:
  // `bytes`: of one slot. No path: memory, which nobody reads afterwards. Throws kIo naming the file.
  ChunkSlots(const std::string& path, size_t bytes);
  ~ChunkSlots();
  ChunkSlots(const ChunkSlots&) = delete;
  ChunkSlots& operator=(const ChunkSlots&) = delete;

  // That of the chunk which is being put together.
  std::span<std::byte> now() const;
  // It is of that chunk, and has so many bytes.
  void note(const Hash256& group, uint32_t chunk, size_t bytes) const;
  // A table has taken it: the next chunk comes into another slot, where nothing lies that is on its way.
  void next();
  // The table that has taken the last one goes to the disk aside; until landed() that stays here.
  void hold();
  void landed();

  // What a process that was killed left in such a file, if there is one.
  using Use = std::function<void(const Hash256& group, uint32_t chunk, std::span<const std::byte> bytes,
                                 size_t slot)>;
  static void read(const std::string& path, const Use& use);
  // Nothing is left in that slot, and the disk has its room again.
  static void forget(const std::string& path, size_t slot);

 private:
  struct Header;
  Header& header(size_t slot) const;

  const size_t count_, bytes_;  // of one slot with its header
  std::vector<std::byte> own_;
  std::byte* data_ = nullptr;
  size_t now_ = 0;
  std::optional<size_t> last_, held_;
};

}  // namespace caravan
