#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

// How values lie in the tables that RocksDB writes for bulk families, by its block_builder.cc and
// block_based_table_builder.cc. Inside store/.
namespace caravan {

// What stands before the value in a block that begins with it: how many bytes of the key are the last one's,
// how many are not, the value's size, and the key with its sequence number and kind: zero in an ingested
// table, and a put.
std::string block_begin(std::string_view key, uint32_t value_bytes);

// The values of a table that was cut short anywhere, in their order, up to the first thing that is none: what
// follows the values of a whole table may be taken for one, so that `use` has to know its own. Returns why it
// could not be read to its end, or nothing. Throws what `use` throws.
// As it goes on, what was used gives its room on the disk back, unless the file has another name, too; the
// next call goes on behind it.
std::string read_cut_table(
    const std::string& path,
    const std::function<void(std::string_view key, std::span<const std::byte> value)>& use);

}  // namespace caravan
