#include "shards/incoming_groups.h"

#include <gtest/gtest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <optional>

#include "base/random.h"
#include "shards/store_import.h"
#include "shards/store_source.h"
#include "store/memory_bulk.h"
#include "store/memory_store.h"
#include "store/rocks_store.h"
#include "store_models.h"
#include "tests/support/temporary_folder.h"

namespace caravan {
namespace {

using Content = std::vector<std::byte>;
using State = IncomingGroups::State;

Content content_of(uint64_t seed, size_t bytes) {
  std::vector<uint8_t> drawn(bytes);
  SeededRandom random(seed);
  random.fill(drawn);
  const auto* data = reinterpret_cast<const std::byte*>(drawn.data());
  return {data, data + bytes};
}

class IncomingTest : public testing::Test {
 protected:
  IncomingTest() { start(); }
  // As after a restart: what was in memory is gone.
  void start() {
    incoming_.reset();
    store_ = std::make_shared<ShardStore>(
        records_, bulk_, ShardStoreOptions{.name = "the test store", .table_bytes = 3 << 20});
    incoming_.emplace(store_, folder());
  }
  std::string folder() const { return folder_.path() + "/fetch"; }
  size_t files() const {  // of groups
    const std::filesystem::directory_iterator all(folder());
    return static_cast<size_t>(std::count_if(
        begin(all), end(all), [](const auto& file) { return file.path().extension() == ".part"; }));
  }
  State append(const Content& content, const Hash256& hash, uint64_t offset, uint64_t count) {
    const std::span<const std::byte> part = std::span(content).subspan(offset, count);
    const std::span<const std::byte> halves[] = {part.first(count / 2), part.subspan(count / 2)};
    return incoming_->append(hash, content.size(), offset, halves);
  }
  Content stored(const Hash256& hash) const {
    Content out(store_->group_bytes(hash).value());
    store_->read(hash, 0, out);
    return out;
  }

  test::TemporaryFolder folder_;
  std::shared_ptr<MemoryStore> records_ = std::make_shared<MemoryStore>();
  std::optional<MemoryBulk::Fault> commit_fault_;
  std::shared_ptr<MemoryBulk> bulk_ =
      std::make_shared<MemoryBulk>([this](MemoryBulk::Operation operation, std::string_view) {
        return operation == MemoryBulk::Operation::kCommit && commit_fault_ ? *commit_fault_
                                                                            : MemoryBulk::Fault::kNone;
      });
  std::shared_ptr<ShardStore> store_;
  std::optional<IncomingGroups> incoming_;
};

TEST_F(IncomingTest, GoesOnAtTheNextByteAfterARestart) {
  uint64_t restarts = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SeededRandom random(seed);
    const size_t count = 1 + random.below(6);
    uint64_t total = 0, appended = 0;
    std::vector<Hash256> hashes;
    std::vector<uint64_t> sizes;
    for (size_t i = 0; i < count; ++i) {
      const Content content =
          content_of(seed * 100 + i, 1 + random.below(random.below(2) ? 3'000'000 : 3000));
      hashes.push_back(sha256(content));
      sizes.push_back(content.size());
      total += content.size();
      uint64_t at = incoming_->have(hashes.back(), content.size());
      ASSERT_EQ(at, 0u);
      while (at < content.size()) {
        const uint64_t part = std::min<uint64_t>(content.size() - at, 1 + random.below(700'000));
        const State state = append(content, hashes.back(), at, part);
        at += part;
        appended += part;
        ASSERT_EQ(state, at == content.size() ? State::kWhole : State::kPart);
        if (random.below(4) > 0) continue;
        ++restarts;
        start();
        ASSERT_EQ(incoming_->have(hashes.back(), content.size()), at) << "seed " << seed;
      }
    }
    EXPECT_EQ(appended, total);
    for (size_t i = 0; i < count; ++i) EXPECT_EQ(incoming_->have(hashes[i], sizes[i]), sizes[i]);
    incoming_->flush();
    for (size_t i = 0; i < count; ++i) EXPECT_EQ(sha256(stored(hashes[i])), hashes[i]);
    EXPECT_EQ(files(), 0u);
  }
  EXPECT_GT(restarts, 20u);
}

TEST_F(IncomingTest, GroupsThatComeAtOnceAreEachWhole) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SeededRandom random(500 + seed);
    std::vector<Content> contents;
    for (size_t i = 0; i < 4; ++i)
      contents.push_back(content_of(seed * 100 + i + 50, 1 + random.below(2'500'000)));
    std::vector<uint64_t> at(contents.size());
    for (size_t left = contents.size(); left > 0;) {
      const size_t i = random.below(contents.size());
      const Content& content = contents[i];
      if (at[i] == content.size()) continue;
      const uint64_t part = std::min<uint64_t>(content.size() - at[i], 1 + random.below(600'000));
      const State state = append(content, sha256(content), at[i], part);
      at[i] += part;
      ASSERT_EQ(state, at[i] == content.size() ? State::kWhole : State::kPart);
      if (at[i] == content.size()) --left;
      if (random.below(8) == 0) incoming_->flush();
    }
    incoming_->flush();
    for (const Content& content : contents) EXPECT_EQ(stored(sha256(content)), content) << "seed " << seed;
    EXPECT_EQ(files(), 0u);
  }
}

TEST_F(IncomingTest, AGroupThatGivesWayToAnotherLeavesNothingDead) {
  const Content large = content_of(1, 5'000'000), other = content_of(2, 1000);
  EXPECT_EQ(append(large, sha256(large), 0, 1'500'000), State::kPart);
  EXPECT_EQ(append(other, sha256(other), 0, 1000), State::kWhole);
  EXPECT_EQ(append(large, sha256(large), 1'500'000, 3'500'000), State::kWhole);
  incoming_->flush();
  EXPECT_EQ(stored(sha256(large)), large);
  const uint64_t unused = store_->unused_bytes(std::vector{sha256(large), sha256(other)});
  EXPECT_EQ(unused, 0u);
}

TEST_F(IncomingTest, AWrongHashIsThrownAwayAndTheOthersStay) {
  const Content good = content_of(1, 100'000), bad = content_of(2, 5000);
  append(good, sha256(good), 0, good.size());
  Content flipped = bad;
  flipped[4000] ^= std::byte{1};
  EXPECT_EQ(append(flipped, sha256(bad), 0, 3000), State::kPart);
  EXPECT_EQ(append(flipped, sha256(bad), 3000, 2000), State::kWrong);
  EXPECT_EQ(incoming_->have(sha256(bad), bad.size()), 0u);
  EXPECT_EQ(append(bad, sha256(bad), 0, bad.size()), State::kWhole);
  incoming_->flush();
  EXPECT_TRUE(stored(sha256(good)) == good);
  EXPECT_TRUE(stored(sha256(bad)) == bad);
}

TEST_F(IncomingTest, WhatACrashGarbledIsFoundAndFetchedAgain) {
  const Content content = content_of(3, 200'000);
  const Hash256 hash = sha256(content);
  Content garbled = content;
  garbled[70'000] ^= std::byte{8};
  append(garbled, hash, 0, 150'000);
  start();
  EXPECT_EQ(incoming_->have(hash, content.size()), 150'000u);
  EXPECT_EQ(append(content, hash, 150'000, 50'000), State::kWrong);
  // A file that is longer than the content is none of it.
  append(content_of(4, 300'000), hash, 0, 300'000 - 1);
  EXPECT_EQ(incoming_->have(hash, content.size()), 0u);
}

TEST_F(IncomingTest, ADamagedGroupIsReplaced) {
  const Content content = content_of(5, 2'500'000), other = content_of(6, 1000);
  const Hash256 hash = sha256(content);
  append(content, hash, 0, content.size());
  append(other, sha256(other), 0, other.size());
  incoming_->flush();
  incoming_->check(hash, content.size());
  EXPECT_EQ(incoming_->have(hash, content.size()), content.size()) << "it is not damaged yet";
  for (const std::string& key : bulk_->keys())
    if (bulk_->value(key)->size() > 500'000) bulk_->value(key)->at(300'000) ^= std::byte{1};
  EXPECT_THROW(stored(hash), Error);
  incoming_->check(hash, content.size());
  EXPECT_EQ(incoming_->have(hash, content.size()), 0u);
  EXPECT_EQ(append(content, hash, 0, 1'000'000), State::kPart);
  EXPECT_EQ(append(content, hash, 1'000'000, content.size() - 1'000'000), State::kWhole);
  EXPECT_EQ(incoming_->have(hash, content.size()), content.size());
  incoming_->flush();
  EXPECT_TRUE(stored(hash) == content);
  EXPECT_EQ(incoming_->have(hash, content.size()), content.size());
  EXPECT_EQ(files(), 0u);
}

TEST_F(IncomingTest, AFullDiskIsAnErrorAndNothingIsLost) {
  for (const bool restarts : {false, true}) {
    const Content content = content_of(7 + restarts * 100, 100'000);
    const Hash256 hash = sha256(content);
    append(content, hash, 0, content.size());
    commit_fault_ = MemoryBulk::Fault::kFull;
    EXPECT_THROW(incoming_->flush(), Error);
    commit_fault_.reset();
    if (restarts) start();
    EXPECT_EQ(incoming_->have(hash, content.size()), content.size());
    incoming_->flush();
    EXPECT_TRUE(stored(hash) == content);
  }
}

TEST_F(IncomingTest, AFullTableThatDoesNotReachTheDiskIsAnErrorAndNothingIsLost) {
  std::vector<Content> contents;
  for (uint64_t i = 0; i < 3; ++i) contents.push_back(content_of(200 + i, 3'200'000));
  commit_fault_ = MemoryBulk::Fault::kFull;
  EXPECT_EQ(append(contents[0], sha256(contents[0]), 0, contents[0].size()), State::kWhole);
  EXPECT_THROW(append(contents[1], sha256(contents[1]), 0, contents[1].size()), Error);
  EXPECT_FALSE(store_->contains(sha256(contents[0])));
  commit_fault_.reset();
  for (const Content& content : contents) {
    const uint64_t have = incoming_->have(sha256(content), content.size());
    EXPECT_EQ(have, &content == &contents[2] ? 0 : content.size());
    if (have == 0) append(content, sha256(content), 0, content.size());
  }
  incoming_->flush();
  for (const Content& content : contents) EXPECT_TRUE(stored(sha256(content)) == content);
  EXPECT_EQ(files(), 0u);
}

TEST_F(IncomingTest, WhatComesInOneGoIsWrittenOnce) {
  for (uint64_t i = 0; i < 8; ++i) {
    const Content content = content_of(300 + i, 4'000'000 - i * 100'000);
    for (const uint64_t half : {0u, 1u}) {
      EXPECT_EQ(incoming_->have(sha256(content), content.size()), half * content.size() / 2);
      append(content, sha256(content), half * content.size() / 2, content.size() / 2);
      EXPECT_EQ(files(), 0u);
    }
  }
  const Content begun = content_of(400, 100'000);
  append(begun, sha256(begun), 0, 50'000);
  start();
  EXPECT_EQ(incoming_->have(sha256(begun), begun.size()), 50'000u);
  EXPECT_EQ(files(), 1u);
}

// A flush in the middle of a group, as when another span is wanted: what is whole is in the store, and the
// group goes on where it was.
TEST_F(IncomingTest, AFlushKeepsWhatIsUnderWay) {
  const Content whole = content_of(410, 1'200'000), begun = content_of(411, 3'000'000);
  append(whole, sha256(whole), 0, whole.size());
  append(begun, sha256(begun), 0, 2'345'678);
  incoming_->flush();
  EXPECT_TRUE(stored(sha256(whole)) == whole);
  EXPECT_EQ(incoming_->have(sha256(begun), begun.size()), 2'345'678u);
  EXPECT_EQ(append(begun, sha256(begun), 2'345'678, begun.size() - 2'345'678), State::kWhole);
  incoming_->flush();
  EXPECT_TRUE(stored(sha256(begun)) == begun);
  EXPECT_EQ(files(), 0u);
}

TEST_F(IncomingTest, AGroupThatCameWrongAndThenRightIsRightAfterARestart) {
  const Content content = content_of(420, 2'500'000);
  const Hash256 hash = sha256(content);
  Content flipped = content;
  flipped[1'700'000] ^= std::byte{4};
  EXPECT_EQ(append(flipped, hash, 0, flipped.size()), State::kWrong);
  append(content, hash, 0, 2'000'000);
  start();
  ASSERT_EQ(incoming_->have(hash, content.size()), 2'000'000u);
  EXPECT_EQ(append(content, hash, 2'000'000, 500'000), State::kWhole);
  incoming_->flush();
  EXPECT_TRUE(stored(hash) == content);
}

// A record in the store that names the groups, as a peer has it from a head.
Hash256 put_record(ShardStore& store, IncomingGroups& incoming, const std::string& folder,
                   const RandomModel& model) {
  write_model(model, folder);
  ShardStore elsewhere(std::make_shared<MemoryStore>(), std::make_shared<MemoryBulk>(), ShardStoreOptions{});
  const std::string bytes =
      encode_model_record(without_paths(hash_model(elsewhere, read_manifest(folder), {})));
  const auto* data = reinterpret_cast<const std::byte*>(bytes.data());
  const Content record(data, data + bytes.size());
  const std::span<const std::byte> part = record;
  incoming.append(sha256(record), record.size(), 0, {&part, 1});
  incoming.flush();
  store.put_partial(sha256(record));
  return sha256(record);
}

TEST_F(IncomingTest, BeginningsOfWhatNoModelNamesGo) {
  const Hash256 first = put_record(*store_, *incoming_, folder_.path() + "/first", {.weights = 1});
  const Hash256 second = put_record(*store_, *incoming_, folder_.path() + "/second", {.weights = 2});
  const std::vector<Hash256> wanted = {store_->read_record(first).hashes.front(),
                                       store_->read_record(second).hashes.back(), sha256(content_of(8, 100))};
  const Content some = content_of(9, 60);
  for (const Hash256& group : wanted) {
    const std::span<const std::byte> part = some;
    EXPECT_EQ(incoming_->append(group, 100, 0, {&part, 1}), State::kPart);
  }
  EXPECT_EQ(incoming_->have(wanted[2], 100), 60u);
  incoming_->flush();
  EXPECT_GE(IncomingGroups::bytes_in(folder()), 180u);
  EXPECT_GT(incoming_->remove_unwanted(), 60u);
  EXPECT_EQ(incoming_->have(wanted[0], 100), 60u);
  EXPECT_EQ(incoming_->have(wanted[1], 100), 60u);
  EXPECT_EQ(incoming_->have(wanted[2], 100), 0u);
  store_->erase_partial(second);
  incoming_->remove_unwanted();
  EXPECT_EQ(incoming_->have(wanted[0], 100), 60u);
  EXPECT_EQ(incoming_->have(wanted[1], 100), 0u) << "its model was removed";
}

// Whoever was killed while damaged groups came again goes on with what came, and the damaged bytes go.
TEST_F(IncomingTest, WhatCameOfADamagedGroupIsKept) {
  const Content content = content_of(430, 2'500'000);
  const Hash256 hash = sha256(content);
  append(content, hash, 0, content.size());
  incoming_->flush();
  EXPECT_FALSE(incoming_->take_mended());
  for (const std::string& key : bulk_->keys()) bulk_->value(key)->back() ^= std::byte{1};
  incoming_->check(hash, content.size());
  EXPECT_EQ(append(content, hash, 0, 1'800'000), State::kPart);
  start();
  EXPECT_EQ(incoming_->have(hash, content.size()), 1'800'000u);
  start();
  EXPECT_EQ(incoming_->have(hash, content.size()), 1'800'000u);
  EXPECT_EQ(append(content, hash, 1'800'000, 700'000), State::kWhole);
  incoming_->flush();
  EXPECT_TRUE(stored(hash) == content);
  EXPECT_TRUE(incoming_->take_mended());
  EXPECT_EQ(files(), 0u);
}

// A process of its own that appends the groups in their order and kills itself after so many bytes.
void append_and_die(const std::string& folder, const std::vector<Content>& groups, uint64_t bytes,
                    uint64_t seed) try {
  SeededRandom random(seed);
  RocksStore rocks(folder, {ShardStore::kRecordsFamily, ShardStore::kBulkFamily});
  auto store = std::make_shared<ShardStore>(rocks.family(ShardStore::kRecordsFamily),
                                            rocks.bulk(ShardStore::kBulkFamily),
                                            ShardStoreOptions{.table_bytes = 6 << 20});
  IncomingGroups incoming(store, folder + "/fetch");
  for (const Content& content : groups) {
    const Hash256 hash = sha256(content);
    uint64_t at = incoming.have(hash, content.size());
    while (at < content.size()) {
      const uint64_t part = std::min({content.size() - at, 1 + random.below(700'000), bytes});
      if (part == 0) ::raise(SIGKILL);
      const std::span<const std::byte> bytes_of_part = std::span(content).subspan(at, part);
      incoming.append(hash, content.size(), at, {&bytes_of_part, 1});
      at += part;
      bytes -= part;
    }
  }
  ::raise(SIGKILL);
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  ::_exit(2);
}

// Tables are taken to the disk aside; whatever they have, no byte comes twice.
TEST(IncomingGroups, GoesOnAtTheNextByteAfterAKill) {
  std::vector<Content> groups;
  uint64_t all = 0;
  for (const size_t bytes : {2'500'000, 40'000, 5'300'000, 1'048'576, 3'000'000, 20'000, 2'097'152})
    groups.push_back(content_of(groups.size() + 600, bytes)), all += bytes;
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    test::TemporaryFolder folder;
    SeededRandom random(seed);
    uint64_t appended = 0;
    for (int life = 0; appended < all; ++life) {
      const uint64_t more = random.below(life == 0 ? all : 3'000'000);
      const pid_t child = ::fork();
      if (child == 0) append_and_die(folder.path(), groups, more, seed * 100 + static_cast<uint64_t>(life));
      int status = 0;
      ASSERT_EQ(::waitpid(child, &status, 0), child);
      ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "seed " << seed << ", life " << life;
      appended = std::min(all, appended + more);
      if (random.below(2) == 0) continue;
      RocksStore rocks(folder.path(), {ShardStore::kRecordsFamily, ShardStore::kBulkFamily});
      auto store = std::make_shared<ShardStore>(rocks.family(ShardStore::kRecordsFamily),
                                                rocks.bulk(ShardStore::kBulkFamily), ShardStoreOptions{});
      IncomingGroups incoming(store, folder.path() + "/fetch");
      uint64_t have = 0;
      for (const Content& content : groups) have += incoming.have(sha256(content), content.size());
      EXPECT_EQ(have, appended) << "seed " << seed << ", life " << life;
    }
    RocksStore rocks(folder.path(), {ShardStore::kRecordsFamily, ShardStore::kBulkFamily});
    auto store = std::make_shared<ShardStore>(rocks.family(ShardStore::kRecordsFamily),
                                              rocks.bulk(ShardStore::kBulkFamily), ShardStoreOptions{});
    IncomingGroups incoming(store, folder.path() + "/fetch");
    for (const Content& content : groups)
      EXPECT_EQ(incoming.have(sha256(content), content.size()), content.size());
    incoming.flush();
    for (const Content& content : groups) {
      Content out(content.size());
      store->read(sha256(content), 0, out);
      EXPECT_TRUE(out == content);
    }
  }
}

// What a peer without the file does: the record first, then some of the groups.
TEST_F(IncomingTest, APartOfAModelOpensFromItsRecordAndIsNotSwept) {
  SeededRandom random(10);
  RandomModel model = random_model(random);
  model.layers = 3;
  write_model(model, folder_.path() + "/model");
  const Manifest manifest = read_manifest(folder_.path() + "/model");
  auto elsewhere = std::make_shared<ShardStore>(std::make_shared<MemoryStore>(),
                                                std::make_shared<MemoryBulk>(), ShardStoreOptions{});
  const ModelRecord told = without_paths(hash_model(*elsewhere, manifest, {}));
  EXPECT_TRUE(elsewhere->models().empty()) << "hashing imports nothing";
  const std::string bytes = encode_model_record(told);
  EXPECT_EQ(bytes.find(folder_.path()), std::string::npos) << "no path of the head's machine leaves it";
  const auto* data = reinterpret_cast<const std::byte*>(bytes.data());
  const Content record(data, data + bytes.size());
  append(record, sha256(record), 0, record.size());
  const size_t first = told.hashes.size() / 2;
  for (size_t i = first; i < told.hashes.size(); ++i) {
    Content content(manifest.groups[i].bytes().count);
    read_content(*manifest.source, manifest.groups[i], 0, content);
    if (incoming_->have(told.hashes[i], content.size()) == 0) {
      ASSERT_EQ(append(content, told.hashes[i], 0, content.size()), State::kWhole);
    }
  }
  incoming_->flush();
  store_->put_partial(sha256(record));
  store_->sweep();
  start();
  ASSERT_EQ(store_->partial_models().size(), 1u);
  const Manifest part = open_record(store_, store_->read_record(store_->partial_models()[0]));
  EXPECT_EQ(store_->read_record(sha256(record)).fingerprint, manifest.fingerprint());
  for (size_t i = first; i < told.hashes.size(); ++i)
    for (size_t t = 0; t < part.groups[i].tensors.size(); ++t) {
      const Extent& here = part.groups[i].tensors[t].extent;
      const Extent& there = manifest.groups[i].tensors[t].extent;
      Content a(here.length), b(there.length);
      part.source->read(here.file, here.offset, a);
      manifest.source->read(there.file, there.offset, b);
      ASSERT_TRUE(a == b) << to_string(part.groups[i].id);
    }
  store_->erase_partial(sha256(record));
  store_->sweep();
  EXPECT_EQ(bulk_->bytes().count, 0u);
}

}  // namespace
}  // namespace caravan
