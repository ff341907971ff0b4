#include "daemon/block_tags.h"

#include <gtest/gtest.h>

#include <set>

#include "base/random.h"

namespace caravan {
namespace {

std::vector<TokenId> some_tokens(size_t count, uint64_t seed = 1) {
  SeededRandom random(seed);
  std::vector<TokenId> tokens(count);
  for (TokenId& token : tokens) token = static_cast<TokenId>(random.next());
  return tokens;
}

std::vector<BlockTag> tags_of(const std::vector<TokenId>& tokens, const ArchiveKey& key = {},
                              const Hash256& model = {}) {
  std::vector<BlockTag> tags;
  BlockTagger(key, model).extend(tags, tokens, tokens.size() / 32);
  return tags;
}

TEST(BlockTags, OneForEachFullBlock) {
  EXPECT_TRUE(tags_of(some_tokens(31)).empty());
  EXPECT_EQ(tags_of(some_tokens(32)).size(), 1u);
  EXPECT_EQ(tags_of(some_tokens(100)).size(), 3u);
}

TEST(BlockTags, TheSameHoweverTheyAreMade) {
  const std::vector<TokenId> tokens = some_tokens(320);
  const std::vector<BlockTag> whole = tags_of(tokens);
  std::vector<BlockTag> grown;
  for (const size_t blocks : {1, 1, 4, 3, 10}) BlockTagger({}, {}).extend(grown, tokens, blocks);
  EXPECT_EQ(grown, whole);
  EXPECT_EQ(std::set<BlockTag>(whole.begin(), whole.end()).size(), 10u);
}

TEST(BlockTags, StandForAllTokensUpToTheirEnd) {
  const std::vector<TokenId> tokens = some_tokens(128);
  const std::vector<BlockTag> tags = tags_of(tokens);
  for (size_t changed = 0; changed < tokens.size(); ++changed)
    for (const TokenId bit : {1u, 1u << 31}) {
      std::vector<TokenId> other = tokens;
      other[changed] ^= bit;
      const std::vector<BlockTag> others = tags_of(other);
      for (size_t block = 0; block < 4; ++block)
        ASSERT_EQ(others[block] == tags[block], block < changed / 32) << "token " << changed;
    }
  // The same block in another place is another.
  std::vector<TokenId> twice(tokens.begin(), tokens.begin() + 32);
  twice.insert(twice.end(), tokens.begin(), tokens.begin() + 32);
  EXPECT_NE(tags_of(twice)[0], tags_of(twice)[1]);
}

TEST(BlockTags, AreOfOneKeyAndOneModel) {
  const std::vector<TokenId> tokens = some_tokens(64);
  ArchiveKey key;
  key.bytes[31] = 1;
  Hash256 model;
  model.bytes[31] = 1;
  EXPECT_NE(tags_of(tokens, key), tags_of(tokens));
  EXPECT_NE(tags_of(tokens, {}, model), tags_of(tokens));
}

}  // namespace
}  // namespace caravan
