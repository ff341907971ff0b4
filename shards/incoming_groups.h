#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "shards/shard_store.h"

namespace caravan {

// Content on its way into a shard store. What comes in one go is written once, into a table of the store;
// what is left of tables that were given up is salvaged into a file for each group, and what comes of a group
// afterwards, or while another one is under way, goes there, too. So a fetch goes on at the next byte after a
// broken link, a restart or a kill. A group that is whole and has the right hash is in the store. What a
// power failure garbles shows in the hash. One thread.
class IncomingGroups {
 public:
  // `folder` is made when it is needed. Throws kIo naming it.
  IncomingGroups(std::shared_ptr<ShardStore> store, std::string folder);
  ~IncomingGroups();
  IncomingGroups(const IncomingGroups&) = delete;
  IncomingGroups& operator=(const IncomingGroups&) = delete;

  // How much of the beginning is here: all of it exactly when the store has it or will with the next flush.
  // Throws as append.
  uint64_t have(const Hash256& group, uint64_t bytes);

  enum class State : uint8_t {
    kPart,   // more is to come
    kWhole,  // all of it is here, with the right hash
    kWrong,  // all of it came and has another hash: it is thrown away
  };
  // `offset` is where the last append of the group ended, or have(). Throws kIo (a full disk named as such);
  // have() then says what is left of any group.
  State append(const Hash256& group, uint64_t bytes, uint64_t offset,
               std::span<const std::span<const std::byte>> parts);
  // Reads a stored group and looks at its checksums; one that is damaged counts as not here from now on, and
  // takes the damaged one's place once it has come again.
  void check(const Hash256& group, uint64_t bytes);
  // What is whole can be read from the store when this returns. Throws as append.
  void flush();
  // Throws files away of what no model names that a head was asked for, and of what the store has. Returns
  // how many bytes that was. Throws kIo.
  uint64_t remove_unwanted();
  // What lies in such a folder of groups that are not in the store yet. Any thread.
  static uint64_t bytes_in(const std::string& folder);

  // Whether something came again that is damaged in the store, since this was asked last.
  bool take_mended() { return std::exchange(has_mended_, false); }

 private:
  std::string path_of(const Hash256& group) const;
  std::string chunks_path() const;
  bool is_stored(const Hash256& group) const;
  bool is_good(const Hash256& group) const;  // in the store, as far as is known
  void use_writer(const std::function<void(ShardStore::Writer&)>& what);
  void begin(const Hash256& group, uint64_t bytes);
  void write_file(const Hash256& group, uint64_t offset,
                  std::span<const std::span<const std::byte>> parts) const;
  State finish(const Hash256& group, uint64_t bytes);
  void add_file(ShardStore::Writer& writer, const Hash256& group, uint64_t bytes);
  void set_aside();
  // Returns how many bytes of tables nobody wants.
  uint64_t salvage(const std::set<Hash256>* wanted = nullptr);
  bool write_salvaged(const Hash256& group, uint64_t offset, std::span<const std::byte> bytes,
                      bool again) const;
  void forget_writer();
  void remove_stored();
  void remove_files(const std::function<bool(const std::string& name)>& which) const;

  const std::shared_ptr<ShardStore> store_;
  const std::string folder_;
  // Gets the bytes of the group that began last as they come.
  std::optional<ShardStore::Writer> writer_;
  std::vector<Hash256> finished_;  // given to the writer, and not acknowledged yet
  bool may_salvage_ = true, has_mended_ = false;
};

}  // namespace caravan
