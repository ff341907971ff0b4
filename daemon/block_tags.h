#pragma once

#include <span>
#include <vector>

#include "base/ids.h"

namespace caravan {

// The head's secret that makes tags: whoever has none learns nothing of the tokens from them.
using ArchiveKey = Blob<struct ArchiveKeyTag, 32>;

// Makes the tags of a sequence's full blocks: a chain of keyed hashes, so that a tag stands for all tokens up
// to its block's end, of this model. Pure; any thread.
class BlockTagger {
 public:
  BlockTagger(const ArchiveKey& key, const Hash256& model);

  // Makes `tags` at least `blocks` long, which `tokens` must fill. What it holds are tags of the same tokens.
  void extend(std::vector<BlockTag>& tags, std::span<const TokenId> tokens, size_t blocks) const;

 private:
  BlockTag hash(std::span<const std::byte> bytes) const;

  ArchiveKey key_;
  BlockTag first_;  // before the first block
};

}  // namespace caravan
