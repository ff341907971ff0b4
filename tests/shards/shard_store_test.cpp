#include "shards/shard_store.h"

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <optional>
#include <set>

#include "base/random.h"
#include "shards/store_verify.h"
#include "store/rocks_store.h"
#include "store_fixture.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;
using Fault = MemoryBulk::Fault;

TEST_F(StoreTest, CopiedModelsAreTheSameWithoutTheirFiles) {
  SeededRandom random(1);
  for (int i = 0; i < 12; ++i) {
    open(1 + random.below(300'000));
    const std::string path = write(random_model(random), "model" + std::to_string(i));
    const Manifest original = read_manifest(path);
    import(path);
    open();  // from what is on disk alone
    const Manifest by_name = opened(store_, original.name);
    expect_same_model(original, by_name);
    EXPECT_TRUE(by_name.source->mapped({0, 0, 1}).empty());
    EXPECT_TRUE(verify_model(*store_, *store_->find_model(original.name), {}).empty());
    fs::rename(path, path + "-away");
    EXPECT_EQ(opened(store_, original.name).fingerprint(), original.fingerprint());
  }
}

TEST_F(StoreTest, AGroupIsTheHashOfItsTensorsBytesInOrder) {
  open();
  const Manifest original = read_manifest(write({.tied = true}, "model"));
  const ModelRecord record = import(original.path).record;
  for (size_t i = 0; i < original.groups.size(); ++i) {
    Sha256 hash;
    for (const Tensor& tensor : original.groups[i].tensors) hash.update(bytes_of(original, tensor));
    const Hash256 expected = hash.finish();
    EXPECT_EQ(record.hashes[i], expected);
    EXPECT_EQ(store_->group_bytes(expected), original.groups[i].bytes().count);
    std::vector<std::byte> content(original.groups[i].bytes().count);
    store_->read(expected, 0, content);
    EXPECT_EQ(sha256(content), expected) << "also of a group that shares its matrix with another";
  }
}

TEST_F(StoreTest, AnyRangeOfAGroupCanBeRead) {
  open();
  const Manifest original = read_manifest(write({.tied = true, .vocabulary = 9000, .width = 64}, "model"));
  const ModelRecord record = import(original.path).record;
  SeededRandom random(2);
  for (size_t i = 0; i < record.hashes.size(); ++i) {
    const uint64_t bytes = original.groups[i].bytes().count;
    std::vector<std::byte> whole(bytes);
    read_content(*original.source, original.groups[i], 0, whole);
    for (int n = 0; n < 20; ++n) {
      const uint64_t offset = random.below(bytes + 1);
      std::vector<std::byte> part(random.below(bytes - offset + 1));
      store_->read(record.hashes[i], offset, part);
      EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + static_cast<ptrdiff_t>(offset)));
    }
    std::vector<std::byte> over(2);
    expect_error(ErrorCode::kMalformed, {"the test store", "past its end"},
                 [&] { store_->read(record.hashes[i], bytes - 1, over); });
  }
  std::vector<std::byte> some(1);
  expect_error(ErrorCode::kNotFound, {"the test store", to_string(Hash256{})},
               [&] { store_->read(Hash256{}, 0, some); });
}

TEST_F(StoreTest, TiedAndSharedGroupsAreStoredOnce) {
  open();
  const RandomModel tied{.tied = true, .vocabulary = 500, .width = 64};
  const Manifest first = read_manifest(write(tied, "first"));
  const uint64_t copied = import(first.path).copied_bytes;
  const uint64_t once = bulk_->bytes().count;
  EXPECT_EQ(copied, first.bytes().count) << "what was written, not what was read";
  EXPECT_LT(once, first.bytes().count + 10'000) << "the tied matrix lies there once";
  // The same weights under another name and with another configuration: nothing new.
  const std::string second = write(tied, "second");
  write_bytes(second + "/config.json", R"({"model_type": "llama", "tie_word_embeddings": true, "more": 1})");
  const ImportResult again = import(second);
  EXPECT_EQ(again.copied_bytes, 0u);
  EXPECT_EQ(bulk_->bytes().count, once);
  EXPECT_EQ(store_->models().size(), 2u);
  // One goes, the other stays whole; both go, and the store is empty.
  EXPECT_EQ(remove_model(*store_, *store_->find_model("first")), 0u);
  expect_same_model(read_manifest(second), opened(store_, "second"));
  EXPECT_EQ(remove_model(*store_, *store_->find_model("second")), once);
  EXPECT_EQ(bulk_->bytes().count, 0u);
}

TEST_F(StoreTest, RemovingGivesSpaceBackAndKeepsWhatOthersUse) {
  SeededRandom random(3);
  for (int i = 0; i < 10; ++i) {
    open(1 + random.below(200'000));
    RandomModel model = random_model(random);
    const std::string one = write(model, "one");
    model.layers += 1;  // the same groups and some more
    model.tied = false;
    const std::string two = write(model, "two");
    import(one);
    import(two);
    remove_model(*store_, *store_->find_model(random.below(2) ? "one" : "two"));
    open();
    ASSERT_EQ(store_->models().size(), 1u);
    const ModelRecord left = store_->models().front();
    const Manifest original = read_manifest(left.manifest.path);
    expect_same_model(original, open_record(store_, left));
    // At most an eighth of a segment stays for nothing.
    EXPECT_LE(bulk_->bytes().count, original.bytes().count * 8 / 7 + 1000 * original.groups.size());
    remove_model(*store_, left);
    EXPECT_EQ(bulk_->bytes().count, 0u);
    EXPECT_TRUE(store_->models().empty());
  }
}

TEST_F(StoreTest, EveryFlippedByteIsFoundByWhicheverReadsIt) {
  open();
  const RandomModel model{.vocabulary = 24, .width = 8};
  const std::string path = write(model, "model");
  const ModelRecord record = import(path).record;
  fs::rename(path, path + "-away");  // there is no elsewhere
  const auto read_all = [&] {
    for (const Hash256& hash : record.hashes) {
      std::vector<std::byte> content(*store_->group_bytes(hash));
      store_->read(hash, 0, content);
    }
  };
  for (const std::string& key : bulk_->keys()) {
    std::vector<std::byte>& value = *bulk_->value(key);
    for (size_t i = 0; i < value.size(); ++i) {
      value[i] ^= std::byte{1};
      expect_error(ErrorCode::kMalformed, {"the test store", "group ", "chunk 0"}, read_all);
      value[i] ^= std::byte{1};
    }
    value.pop_back();
    expect_error(ErrorCode::kMalformed, {"another size"}, read_all);
    value.push_back(std::byte{0});
    EXPECT_THROW(read_all(), Error);
    value.pop_back();
    value.push_back(std::byte{0});
    // What is left differs in its last byte alone, or not at all.
    const auto findings = verify_model(*store_, record, {});
    EXPECT_LE(findings.size(), 2u);
    if (findings.empty()) continue;
    EXPECT_TRUE(findings[0].mended.empty());
    EXPECT_NE(findings[0].problem.find("chunk 0"), std::string::npos) << findings[0].problem;
    fs::rename(path + "-away", path);
    for (const Finding& finding : verify_model(*store_, record, {})) EXPECT_FALSE(finding.mended.empty());
    EXPECT_TRUE(verify_model(*store_, record, {}).empty());
    fs::rename(path, path + "-away");
    return;  // the keys are others now
  }
}

TEST_F(StoreTest, AChunkOfAnotherPlaceIsNoGoodOne) {
  open(1 << 30);
  const ModelRecord record =
      import(write({.vocabulary = 9000, .width = 64}, "model")).record;  // 2.2 MiB: three chunks
  const auto keys = bulk_->keys();
  ASSERT_GE(keys.size(), 3u);
  std::swap(*bulk_->value(keys[0]), *bulk_->value(keys[1]));
  std::vector<std::byte> content(*store_->group_bytes(record.hashes[0]));
  expect_error(ErrorCode::kMalformed, {"chunk 0"}, [&] { store_->read(record.hashes[0], 0, content); });
}

TEST_F(StoreTest, ADamagedGroupIsReadFromItsFileWhileThatIsThere) {
  open();
  const std::string path = write({}, "model");
  const Manifest original = read_manifest(path);
  import(path);
  for (const std::string& key : bulk_->keys()) bulk_->value(key)->back() ^= std::byte{4};
  expect_same_model(original, opened(store_, "model"));
  std::ofstream(path + "/model.safetensors", std::ios::app) << " ";  // no longer what was imported
  const Manifest alone = opened(store_, "model");
  std::vector<std::byte> some(8);
  expect_error(ErrorCode::kMalformed, {"embed of model", "chunk 0"}, [&] { alone.source->read(0, 0, some); });
}

TEST_F(StoreTest, ReadFaultsAreErrorsNeverWrongBytes) {
  open();
  const ModelRecord record = import(write({.vocabulary = 9000, .width = 64}, "model")).record;
  SeededRandom random(5);
  const std::vector<Fault> kinds = {Fault::kNone, Fault::kNone, Fault::kShort, Fault::kCorrupt, Fault::kIo};
  inject_ = [&](MemoryBulk::Operation, std::string_view) { return kinds[random.below(kinds.size())]; };
  size_t failed = 0, good = 0;
  for (int i = 0; i < 300; ++i) {
    const Hash256& hash = record.hashes[random.below(record.hashes.size())];
    std::vector<std::byte> content(*store_->group_bytes(hash));
    try {
      store_->read(hash, 0, content);
      ASSERT_EQ(sha256(content), hash);
      ++good;
    } catch (const Error& error) {
      ASSERT_TRUE(error.code() == ErrorCode::kMalformed || error.code() == ErrorCode::kIo);
      ++failed;
    }
  }
  EXPECT_GT(failed, 50u);
  EXPECT_GT(good, 50u);
}

// Imports that fail at any point lose nothing that was acknowledged, and the next one goes on from there.
TEST_F(StoreTest, AnImportThatFailedResumes) {
  SeededRandom random(6);
  for (int i = 0; i < 15; ++i) {
    records_ = std::make_shared<MemoryStore>();
    inject_ = nullptr;
    bulk_->erase_range("", "\xff");
    open(20'000);
    const std::string other = write({.weights = 77}, "other");
    import(other);
    const Manifest original = read_manifest(write(random_model(random), "model" + std::to_string(i)));
    uint64_t countdown = 1 + random.below(12);
    std::mutex mutex;  // a full table is committed beside the next one
    inject_ = [&](MemoryBulk::Operation operation, std::string_view) {
      const std::lock_guard lock(mutex);
      if (operation == MemoryBulk::Operation::kRead || --countdown > 0) return Fault::kNone;
      return random.below(2) ? Fault::kFull : Fault::kIo;
    };
    bool failed = false;
    try {
      import(original.path);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kIo);
      failed = true;
    }
    inject_ = nullptr;
    open(20'000);
    uint64_t there = 0;
    for (const WeightGroup& group : original.groups) {
      std::vector<std::byte> content(group.bytes().count);
      read_content(*original.source, group, 0, content);
      if (store_->contains(sha256(content))) there += content.size();
    }
    const ImportResult again = import(original.path);
    if (failed) {
      EXPECT_LE(again.copied_bytes + there, content_bytes(original))
          << "acknowledged groups are not copied again";
    }
    expect_same_model(original, opened(store_, original.name));
    expect_same_model(read_manifest(other), opened(store_, "other"));
    store_->sweep();
    EXPECT_LE(bulk_->bytes().count,
              (original.bytes().count + read_manifest(other).bytes().count) * 8 / 7 + 9000);
  }
}

TEST_F(StoreTest, AnInterruptedImportKeepsItsHashes) {
  open(10'000);
  const Manifest original = read_manifest(write({.layers = 3, .width = 64}, "model"));
  uint64_t asked = 0;
  ImportOptions options;
  options.cancelled = [&] { return ++asked > 3; };
  expect_error(ErrorCode::kCancelled, {original.path}, [&] { import_model(*store_, original, options); });
  EXPECT_TRUE(store_->models().empty());
  const ImportResult again = import(original.path, false);
  EXPECT_GT(again.hashed_bytes, 0u);
  EXPECT_LT(again.hashed_bytes, content_bytes(original)) << "groups that were hashed are not hashed again";
  EXPECT_EQ(import(original.path, false).hashed_bytes, 0u);
  EXPECT_EQ(import(original.path, true).hashed_bytes, 0u);
}

TEST_F(StoreTest, ProgressIsOfAllBytesOnce) {
  open(10'000);
  for (const bool copy : {false, true, true}) {
    const Manifest manifest = read_manifest(write({.experts = true, .width = 32}, "model"));
    uint64_t told = 0;
    ImportOptions options;
    options.copy = copy;
    options.advance = [&](uint64_t bytes) { told += bytes; };
    const ImportResult result = import_model(*store_, manifest, options);
    EXPECT_EQ(told, content_bytes(manifest));
    uint64_t verified = 0;
    verify_model(*store_, result.record, {.advance = [&](uint64_t bytes) { verified += bytes; }});
    EXPECT_EQ(verified, content_bytes(manifest));
  }
}

TEST_F(StoreTest, ByReferenceCopiesNothingAndKnowsWhenTheFileChanged) {
  open();
  const std::string path = write({}, "model");
  const Manifest original = read_manifest(path);
  import(path, false);
  EXPECT_EQ(bulk_->bytes().count, 0u);
  const Manifest found = opened(store_, "model");
  expect_same_model(original, found);
  EXPECT_FALSE(found.source->mapped({0, 0, 1}).empty()) << "as mapped as the file itself";
  const std::string file = path + "/model.safetensors";
  const auto time = fs::last_write_time(file);
  fs::last_write_time(file, time + std::chrono::seconds(2));
  expect_error(ErrorCode::kRefused, {file, "import it again"}, [&] { opened(store_, "model"); });
  fs::last_write_time(file, time);
  opened(store_, "model");
  std::ofstream(file, std::ios::app) << " ";
  expect_error(ErrorCode::kRefused, {file, "bytes"}, [&] { opened(store_, "model"); });
  fs::remove(file);
  expect_error(ErrorCode::kNotFound, {file}, [&] { opened(store_, "model"); });
}

// As it is told to: whatever was written into the file, its name is free for what it is now.
TEST_F(StoreTest, AFileThatWasWrittenToIsImportedAgain) {
  for (const bool sampled : {false, true}) {
    SCOPED_TRACE(sampled);
    open();
    const std::string path =
        write({.vocabulary = 300, .width = 64, .weights = sampled ? 2u : 1u}, sampled ? "one" : "two");
    const Manifest before = read_manifest(path);
    const Hash256 fingerprint = before.fingerprint();  // of what is in the file now
    const std::string file = path + "/model.safetensors";
    import(path, false);
    const Extent& first = before.groups[0].tensors[0].extent;
    {
      std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
      bytes.seekp(static_cast<std::streamoff>(first.offset + (sampled ? 0 : first.length / 3)));
      bytes.put('\x41');
    }
    fs::last_write_time(file, fs::last_write_time(file) + std::chrono::seconds(2));
    EXPECT_EQ(read_manifest(path).fingerprint() != fingerprint, sampled);
    expect_error(ErrorCode::kRefused, {"import it again"}, [&] { opened(store_, before.name); });
    const ImportResult again = import(path, false);
    ASSERT_TRUE(again.earlier);
    EXPECT_NE(again.changed.find("was written to"), std::string::npos) << again.changed;
    expect_same_model(read_manifest(path), opened(store_, before.name));
    size_t of_that_name = 0;
    for (const ModelRecord& record : store_->models()) of_that_name += record.name() == before.name;
    EXPECT_EQ(of_that_name, 1u);
  }
}

TEST_F(StoreTest, VerifyFindsABadFileAndTakesTheModelFromTheStore) {
  open();
  const RandomModel model{.vocabulary = 40};
  const std::string path = write(model, "model");
  const Manifest original = read_manifest(path);
  const ModelRecord record = import(path, false).record;
  const std::string twin = write(model, "twin");
  write_bytes(twin + "/config.json", R"({"model_type": "llama", "more": 1})");
  const auto flip = [&] {
    const std::string file = path + "/model.safetensors";
    const auto time = fs::last_write_time(file);
    std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
    bytes.seekp(-5, std::ios::end);
    bytes.put('!');
    bytes.close();
    fs::last_write_time(file, time);
  };
  flip();
  auto findings = verify_model(*store_, record, {});
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_NE(findings[0].problem.find("model.safetensors"), std::string::npos) << findings[0].problem;
  EXPECT_EQ(findings[0].group, "layer.0.ffn");
  EXPECT_TRUE(findings[0].mended.empty());
  // What was known of the file's hashes is not believed any more.
  ImportOptions by_another_name;
  by_another_name.name = "other";
  const ImportResult damaged = import_model(*store_, read_manifest(path), by_another_name);
  EXPECT_EQ(damaged.hashed_bytes, content_bytes(original));
  EXPECT_NE(damaged.record.hashes, record.hashes);
  remove_model(*store_, damaged.record);
  import(twin, true);
  findings = verify_model(*store_, record, {});
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_FALSE(findings[0].mended.empty());
  EXPECT_TRUE(store_->find_model("model")->copied);
  const Manifest now = opened(store_, "model");
  EXPECT_EQ(bytes_of(now, *now.groups[1].find(Role::kQuery)),
            bytes_of(read_manifest(twin), *original.groups[1].find(Role::kQuery)));
}

TEST_F(StoreTest, VerifyNotesTheNewTimeOfAFileThatWasTouched) {
  open();
  const std::string path = write({}, "model"), file = path + "/model.safetensors";
  const ModelRecord record = import(path, false).record;
  const auto touch = [&](int seconds) {
    fs::last_write_time(file, fs::last_write_time(file) + std::chrono::seconds(seconds));
  };
  touch(5);
  EXPECT_THROW(require_unchanged(store_->find_model("model")->files), Error);
  auto findings = verify_model(*store_, record, {});
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(findings[0].group, fs::canonical(path));
  EXPECT_NE(findings[0].mended.find("new time"), std::string::npos) << findings[0].mended;
  const ModelRecord noted = *store_->find_model("model");
  EXPECT_NO_THROW(require_unchanged(noted.files));
  EXPECT_EQ(noted.hashes, record.hashes);
  EXPECT_TRUE(verify_model(*store_, noted, {}).empty());
  // The groups are the same, and what the model is besides them is not.
  touch(5);
  write_bytes(path + "/config.json", R"({"model_type": "llama", "more": 1})");
  findings = verify_model(*store_, noted, {});
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_NE(findings[0].problem.find("another model"), std::string::npos) << findings[0].problem;
  EXPECT_TRUE(findings[0].mended.empty());
  EXPECT_THROW(require_unchanged(store_->find_model("model")->files), Error);
}

TEST_F(StoreTest, VerifyNamesAFileThatWasCutShortOnce) {
  open();
  const std::string path = write({}, "model"), file = path + "/model.safetensors";
  const ModelRecord record = import(path, false).record;
  fs::resize_file(file, fs::file_size(file) - 8);
  const auto findings = verify_model(*store_, record, {});
  ASSERT_EQ(findings.size(), 1u);
  const std::string& problem = findings[0].problem;
  EXPECT_NE(problem.find(file), std::string::npos) << problem;
  EXPECT_EQ(problem.find(file), problem.rfind(file)) << problem;
}

TEST_F(StoreTest, ABudgetIsKeptBeforeAnythingIsWritten) {
  open();
  const RandomModel model{.vocabulary = 3000, .width = 32};
  const Manifest manifest = read_manifest(write(model, "model"));
  ImportOptions options;
  options.copy = true;
  options.limit = manifest.bytes().count / 2;
  std::atomic<bool> wrote = false;  // a full table is written by another thread
  inject_ = [&](MemoryBulk::Operation, std::string_view) { return wrote = true, Fault::kNone; };
  expect_error(ErrorCode::kOutOfMemory, {"--disk", to_string(Bytes{*options.limit}), "0 B"},
               [&] { import_model(*store_, manifest, options); });
  options.limit = std::nullopt;
  options.free = 1000;
  expect_error(ErrorCode::kOutOfMemory, {to_string(Bytes{1000}) + " left"},
               [&] { import_model(*store_, manifest, options); });
  EXPECT_FALSE(wrote);
  options.free = std::nullopt;
  import_model(*store_, manifest, options);
  // What is there already costs nothing.
  options.limit = bulk_->bytes().count + 1000;
  import_model(*store_, manifest, options);
  options.limit = 1;  // also where the store has more than that by now
  import_model(*store_, manifest, options);
  options.limit = bulk_->bytes().count + 1000;
  const std::string twin = write(model, "twin");
  write_bytes(twin + "/config.json", R"({"model_type": "llama", "more": 1})");
  import_model(*store_, read_manifest(twin), options);
}

TEST_F(StoreTest, MendingLeavesNothingBehind) {
  open(1 << 30);  // one table, of which the damaged group is a small part
  const ModelRecord record = import(write({.layers = 12, .width = 32}, "model")).record;
  const uint64_t whole = bulk_->bytes().count;
  bulk_->value(bulk_->keys().front())->back() ^= std::byte{4};
  ASSERT_EQ(verify_model(*store_, record, {}).size(), 1u);
  EXPECT_EQ(store_->unused_bytes(record.hashes), 0u);
  EXPECT_EQ(bulk_->bytes().count, whole);
  EXPECT_TRUE(verify_model(*store_, record, {}).empty());
}

TEST_F(StoreTest, DamageIsToldOnceAGroup) {
  open();
  const Manifest original = read_manifest(write({.vocabulary = 9000, .width = 64}, "model"));
  import(original.path);
  for (const std::string& key : bulk_->keys()) bulk_->value(key)->back() ^= std::byte{4};
  const Manifest manifest = opened(store_, "model");
  testing::internal::CaptureStderr();
  for (int pass = 0; pass < 3; ++pass) expect_same_model(original, manifest);
  const std::string log = testing::internal::GetCapturedStderr();
  const auto count = [&](const std::string& text) {
    size_t found = 0;
    for (size_t at = log.find(text); at != std::string::npos; at = log.find(text, at + 1)) ++found;
    return found;
  };
  EXPECT_EQ(count("group_damaged"), original.groups.size()) << log;
  EXPECT_EQ(count("group=embed "), 1u) << log;
  EXPECT_EQ(count("the test store"), original.groups.size()) << log;
  EXPECT_EQ(count("caravan verify mends it"), original.groups.size()) << log;
}

TEST_F(StoreTest, OpenedForReadingItWritesNothing) {
  open();
  import(write({}, "model"));
  ShardStore reader(records_, bulk_, {.name = "the reader", .writable = false});
  EXPECT_TRUE(reader.find_model("model"));
  expect_error(ErrorCode::kInvalidArgument, {"the reader"}, [&] { ShardStore::Writer writer(reader); });
}

// The same through RocksDB, with the room that it takes as du sees it.
TEST(ShardStoreOnDisk, ImportsVerifiesAndRemoves) {
  test::TemporaryFolder folder;
  const RandomModel model{.tied = true, .layers = 2, .vocabulary = 9000, .width = 64};
  const std::string path = folder.path() + "/model";
  write_model(model, path);
  const Manifest original = read_manifest(path);
  const auto disk_bytes = [&] {
    uint64_t sum = 0;
    for (const auto& entry : fs::recursive_directory_iterator(folder.path() + "/state"))
      if (entry.is_regular_file()) sum += entry.file_size();
    return sum;
  };
  const auto open = [&] {
    RocksStore store(folder.path() + "/state", {ShardStore::kRecordsFamily, ShardStore::kBulkFamily});
    return std::make_shared<ShardStore>(store.family(ShardStore::kRecordsFamily),
                                        store.bulk(ShardStore::kBulkFamily), ShardStoreOptions{});
  };
  { import_model(*open(), original, {.copy = true}); }
  EXPECT_GE(disk_bytes(), original.bytes().count);
  EXPECT_LT(disk_bytes(), original.bytes().count + (400u << 10));
  const auto store = open();
  expect_same_model(original, opened(store, "model"));
  EXPECT_TRUE(verify_model(*store, *store->find_model("model"), {}).empty());
  EXPECT_GE(remove_model(*store, *store->find_model("model")), original.bytes().count);
  EXPECT_LT(disk_bytes(), 400u << 10);
}

TEST(ShardStoreOnDisk, AFlippedByteInATableIsFoundAndMended) {
  test::TemporaryFolder folder;
  const std::string path = folder.path() + "/model", state = folder.path() + "/state";
  write_model({.vocabulary = 9000, .width = 64}, path);
  const auto open = [&] {
    RocksStore store(state, {ShardStore::kRecordsFamily, ShardStore::kBulkFamily});
    return std::make_shared<ShardStore>(store.family(ShardStore::kRecordsFamily),
                                        store.bulk(ShardStore::kBulkFamily),
                                        ShardStoreOptions{.name = state});
  };
  { import_model(*open(), read_manifest(path), {.copy = true}); }
  fs::path largest;
  for (const auto& entry : fs::directory_iterator(state + "/store"))
    if (entry.path().extension() == ".sst" && (largest.empty() || entry.file_size() > fs::file_size(largest)))
      largest = entry.path();
  {
    std::fstream bytes(largest, std::ios::in | std::ios::out | std::ios::binary);
    bytes.seekg(1'500'000);
    const int was = bytes.get();
    bytes.seekp(1'500'000);
    bytes.put(static_cast<char>(was ^ 1));
  }
  const auto store = open();
  const ModelRecord record = *store->find_model("model");
  std::vector<std::byte> content(*store->group_bytes(record.hashes[0]));
  expect_error(ErrorCode::kMalformed, {state, to_string(record.hashes[0]), "chunk 1"},
               [&] { store->read(record.hashes[0], 0, content); });
  const auto findings = verify_model(*store, record, {});
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(findings[0].group, "embed");
  EXPECT_NE(findings[0].problem.find("chunk 1"), std::string::npos);
  EXPECT_FALSE(findings[0].mended.empty());
  EXPECT_TRUE(verify_model(*store, record, {}).empty());
}

// Its index cannot be read: all in it is damaged, is read from the file, and is written again by verify.
TEST(ShardStoreOnDisk, ATableThatCannotBeOpenedIsMended) {
  test::TemporaryFolder folder;
  const std::string path = folder.path() + "/model", state = folder.path() + "/state";
  write_model({.experts = true, .layers = 3, .vocabulary = 9000, .width = 64}, path);
  const Manifest original = read_manifest(path);
  const auto open = [&](RocksStore::Damage damage) {
    RocksStore store(state, {ShardStore::kRecordsFamily, ShardStore::kBulkFamily}, RocksStore::Access::kWrite,
                     damage);
    return std::make_shared<ShardStore>(
        store.family(ShardStore::kRecordsFamily), store.bulk(ShardStore::kBulkFamily),
        ShardStoreOptions{.name = state, .table_bytes = 1u << 20});  // several tables
  };
  { import_model(*open(RocksStore::Damage::kRefused), original, {.copy = true}); }
  std::vector<fs::path> tables;
  for (const auto& entry : fs::directory_iterator(state + "/store"))
    if (entry.path().extension() == ".sst" && entry.file_size() > 300'000) tables.push_back(entry.path());
  ASSERT_GE(tables.size(), 3u);
  std::sort(tables.begin(), tables.end());
  for (const fs::path& table : {tables[0], tables[2]}) fs::resize_file(table, fs::file_size(table) - 100);
  {
    const auto store = open(RocksStore::Damage::kOfTablesTolerated);
    expect_same_model(original, opened(store, "model"));
    const ModelRecord record = *store->find_model("model");
    const auto findings = verify_model(*store, record, {});
    EXPECT_GE(findings.size(), 2u);
    EXPECT_LT(findings.size(), record.hashes.size()) << "the other tables are good";
    for (const Finding& finding : findings) EXPECT_FALSE(finding.mended.empty()) << finding.group;
    EXPECT_TRUE(verify_model(*store, record, {}).empty());
  }
  fs::rename(path, path + "-away");
  const auto store = open(RocksStore::Damage::kRefused);
  const ModelRecord record = *store->find_model("model");
  EXPECT_TRUE(verify_model(*store, record, {}).empty());
  EXPECT_GE(remove_model(*store, record), original.bytes().count);
}

}  // namespace
}  // namespace caravan
