#include "daemon/block_tags.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "base/check.h"
#include "base/hash.h"
#include "base/limits.h"

namespace caravan {
namespace {

// Of what a tag says: raised when the same tokens at the same positions come to mean another state.
constexpr std::string_view kDomain = "caravan block tags 1: positions from 0";

}  // namespace

BlockTagger::BlockTagger(const ArchiveKey& key, const Hash256& model) : key_(key) {
  std::vector<std::byte> bytes(model.size() + kDomain.size());
  std::memcpy(bytes.data(), model.bytes.data(), model.size());
  std::memcpy(bytes.data() + model.size(), kDomain.data(), kDomain.size());
  first_ = hash(bytes);
}

BlockTag BlockTagger::hash(std::span<const std::byte> bytes) const {
  const Hash256 whole = keyed_hash(key_.bytes, bytes);
  BlockTag tag;
  std::copy_n(whole.bytes.begin(), tag.size(), tag.bytes.begin());
  return tag;
}

void BlockTagger::extend(std::vector<BlockTag>& tags, std::span<const TokenId> tokens, size_t blocks) const {
  constexpr size_t kTokens = limits::kKvBlockPositions;
  CHECK(blocks * kTokens <= tokens.size());
  // The tag before, then the block's tokens, four little-endian bytes each.
  std::array<std::byte, BlockTag::size() + 4 * kTokens> bytes;
  for (size_t block = tags.size(); block < blocks; ++block) {
    std::memcpy(bytes.data(), (block == 0 ? first_ : tags.back()).bytes.data(), BlockTag::size());
    for (size_t i = 0; i < 4 * kTokens; ++i)
      bytes[BlockTag::size() + i] = static_cast<std::byte>(tokens[block * kTokens + i / 4] >> (8 * (i % 4)));
    tags.push_back(hash(bytes));
  }
}

}  // namespace caravan
