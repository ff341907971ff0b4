#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <thread>

#include "base/error.h"
#include "base/random.h"
#include "store/memory_bulk.h"
#include "store/rocks_store.h"
#include "tests/support/temporary_folder.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;
using test::TemporaryFolder;
using Value = std::vector<std::byte>;

constexpr const char* kFamily = "bulk.test";

Error error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  return {ErrorCode::kCancelled, "no error"};
}

std::string key_of(uint32_t number) {
  std::string key(4, '\0');
  for (int i = 0; i < 4; ++i) key[3 - i] = static_cast<char>(number >> (8 * i));
  return key;
}

Value random_value(SeededRandom& random, size_t bytes) {
  Value value(bytes);
  for (std::byte& byte : value) byte = static_cast<std::byte>(random.below(256));
  return value;
}

std::optional<Value> get(const BulkStore& store, const std::string& key) {
  std::optional<Value> found;
  const auto take = [&](std::span<const std::byte> value) { found.emplace(value.begin(), value.end()); };
  const bool there = store.read(key, take);
  EXPECT_EQ(there, found.has_value());
  return found;
}

void put(BulkStore& store, uint32_t first, const std::vector<Value>& values) {
  const auto batch = store.begin();
  for (size_t i = 0; i < values.size(); ++i) batch->add(key_of(first + static_cast<uint32_t>(i)), values[i]);
  batch->commit();
}

std::optional<Value> get_in_parts(const BulkStore& store, const std::string& key) {
  Value got;
  const bool found =
      store.read_in_parts(key, [&](uint64_t offset, uint64_t of, std::span<const std::byte> part) {
        if (offset == 0) got.clear();
        EXPECT_EQ(offset, got.size());
        EXPECT_LE(offset + part.size(), of);
        got.insert(got.end(), part.begin(), part.end());
      });
  return found ? std::optional(got) : std::nullopt;
}

uint64_t bytes_in(const std::string& folder) {
  uint64_t sum = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) sum += entry.file_size();
  return sum;
}

// What both twins promise: batches appear whole or not at all, and erased ranges are gone.
void behaves_as_a_map(BulkStore& store, uint64_t seed, int operations) {
  SeededRandom random(seed);
  std::map<std::string, Value> model;
  uint32_t next = 1000;
  for (int i = 0; i < operations; ++i) {
    if (random.below(4) == 0) {
      const uint32_t first = 1000 + static_cast<uint32_t>(random.below(next - 999));
      const uint32_t last = first + static_cast<uint32_t>(random.below(8));
      store.erase_range(key_of(first), key_of(last));
      model.erase(model.lower_bound(key_of(first)), model.lower_bound(key_of(last)));
    } else {
      const auto batch = store.begin();
      std::map<std::string, Value> added;
      for (uint64_t n = random.below(6); n > 0; --n) {
        const std::string key = key_of(next++);
        batch->add(key, added[key] = random_value(random, random.below(60'000)));
      }
      if (random.below(5) == 0) continue;  // never committed
      batch->commit();
      model.merge(added);
    }
    std::vector<std::string> some;
    for (uint32_t key = 1000; key < next; ++key)
      if (random.below(3) > 0) some.push_back(key_of(key));
    std::map<std::string, Value> together;
    store.read_many(some, [&](size_t place, std::span<const std::byte> value) {
      together.emplace(some[place], Value(value.begin(), value.end()));
    });
    for (const std::string& key : some) {
      const auto found = model.find(key);
      ASSERT_EQ(together.count(key) > 0, found != model.end()) << key;
      if (found != model.end()) {
        ASSERT_EQ(together[key], found->second) << key;
      }
    }
    for (uint32_t key = 1000; key < next; ++key) {
      const auto found = model.find(key_of(key));
      const auto got = get(store, key_of(key));
      ASSERT_EQ(got.has_value(), found != model.end()) << key;
      ASSERT_EQ(get_in_parts(store, key_of(key)), got);
      if (got) {
        ASSERT_EQ(*got, found->second);
      }
    }
  }
}

TEST(MemoryBulk, BehavesAsAMap) {
  MemoryBulk store;
  behaves_as_a_map(store, 1, 60);
}

TEST(MemoryBulk, FaultsAreWhatTheyAreCalled) {
  MemoryBulk::Fault fault = MemoryBulk::Fault::kNone;
  MemoryBulk store([&](MemoryBulk::Operation, std::string_view) { return fault; }, Bytes{1000});
  const Value value(400, std::byte{7});
  put(store, 1, {value});
  fault = MemoryBulk::Fault::kShort;
  EXPECT_EQ(get(store, key_of(1))->size(), 200u);
  fault = MemoryBulk::Fault::kCorrupt;
  EXPECT_NE(*get(store, key_of(1)), value);
  for (const auto broken : {MemoryBulk::Fault::kIo, MemoryBulk::Fault::kFull}) {
    fault = broken;
    EXPECT_EQ(error_of([&] { put(store, 2, {value}); }).code(), ErrorCode::kIo);
  }
  fault = MemoryBulk::Fault::kNone;
  EXPECT_EQ(*get(store, key_of(1)), value);
  EXPECT_FALSE(get(store, key_of(2)));
  EXPECT_NE(error_of([&] { put(store, 2, {value, value}); }).message().find("full"), std::string::npos);
  EXPECT_EQ(store.bytes().count, 400u);
}

TEST(RocksBulk, BehavesAsAMap) {
  TemporaryFolder folder;
  RocksStore store(folder.path(), {kFamily});
  behaves_as_a_map(*store.bulk(kFamily), 2, 25);
}

TEST(RocksBulk, LastsAndGivesItsSpaceBack) {
  TemporaryFolder folder;
  SeededRandom random(3);
  std::vector<Value> values;
  for (int i = 0; i < 8; ++i) values.push_back(random_value(random, (1 << 20) + 8));
  {
    RocksStore store(folder.path(), {kFamily, "pins"});
    store.family("pins")->put("key", "value");
    for (uint32_t batch = 0; batch < 3; ++batch) put(*store.bulk(kFamily), batch * 100, values);
  }
  RocksStore store(folder.path(), {"pins"});  // one that was not asked for is laid out all the same
  const auto bulk = store.bulk(kFamily);
  for (uint32_t i = 0; i < 8; ++i) EXPECT_EQ(*get(*bulk, key_of(200 + i)), values[i]);
  EXPECT_GE(bulk->bytes().count, 24u << 20);
  EXPECT_LT(bulk->bytes().count, (24u << 20) + (256u << 10));
  bulk->erase_range(key_of(100), key_of(200));  // a whole batch
  EXPECT_LT(bytes_in(folder.path()), 17u << 20);
  bulk->erase_range(key_of(0), key_of(4));  // half of one
  EXPECT_LT(bytes_in(folder.path()), 13u << 20);
  EXPECT_FALSE(get(*bulk, key_of(100)));
  EXPECT_FALSE(get(*bulk, key_of(3)));
  EXPECT_EQ(*get(*bulk, key_of(4)), values[4]);
  EXPECT_EQ(*get(*bulk, key_of(200)), values[0]);
  EXPECT_EQ(store.family("pins")->get("key"), "value");
}

// Only a batch of which a part goes is written again, once for all parts that go together.
void counts_what_it_writes_again(BulkStore& store) {
  constexpr uint64_t kBytes = 100'000, kOverhead = 4096;
  SeededRandom random(4);
  for (uint32_t batch = 0; batch < 20; ++batch)
    put(store, batch * 10, std::vector<Value>(10, random_value(random, kBytes)));
  store.erase_range(key_of(30), key_of(60));
  EXPECT_EQ(store.rewritten().count, 0u) << "neither ingestion nor whole batches";
  const std::vector<BulkStore::Range> parts = {
      {key_of(101), key_of(102)}, {key_of(104), key_of(106)}, {key_of(109), key_of(110)}};
  store.erase_ranges(parts);
  EXPECT_GE(store.rewritten().count, 6 * kBytes);
  EXPECT_LE(store.rewritten().count, 6 * kBytes + kOverhead);
  store.erase_ranges(parts);
  EXPECT_LE(store.rewritten().count, 6 * kBytes + kOverhead) << "they are gone";
  store.erase_range(key_of(100), key_of(110));
  EXPECT_LE(store.rewritten().count, 6 * kBytes + kOverhead) << "the rest goes as a whole";
  for (uint32_t key = 0; key < 200; ++key)
    EXPECT_EQ(get(store, key_of(key)).has_value(), key < 30 || (key >= 60 && key < 100) || key >= 110) << key;
}

TEST(MemoryBulk, CountsWhatItWritesAgain) {
  MemoryBulk store;
  counts_what_it_writes_again(store);
}

TEST(RocksBulk, CountsWhatItWritesAgain) {
  const TemporaryFolder folder;
  RocksStore rocks(folder.path(), {kFamily});
  counts_what_it_writes_again(*rocks.bulk(kFamily));
}

TEST(RocksBulk, ManyReadWhileOneWrites) {
  TemporaryFolder folder;
  RocksStore store(folder.path(), {kFamily});
  const auto bulk = store.bulk(kFamily);
  SeededRandom random(4);
  std::vector<Value> values;
  for (int i = 0; i < 6; ++i) values.push_back(random_value(random, 300'000));
  put(*bulk, 0, values);
  std::atomic<bool> done{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> readers;
  for (uint32_t reader = 0; reader < 3; ++reader)
    readers.emplace_back([&, reader] {
      for (uint32_t i = reader; !done; ++i) wrong += *get(*bulk, key_of(i % 6)) != values[i % 6];
    });
  for (uint32_t batch = 1; batch < 6; ++batch) {
    put(*bulk, batch * 10, values);
    if (batch > 2) bulk->erase_range(key_of((batch - 1) * 10), key_of(batch * 10));
  }
  done = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(wrong, 0);
}

// RocksDB itself would end the process over some of these. Nobody but the reader sums what is read directly.
TEST(RocksBulk, ADamagedTableIsAnErrorOrAValueOfItsSizeAndNeverTheEnd) {
  TemporaryFolder folder;
  RocksStore store(folder.path(), {kFamily});
  const auto bulk = store.bulk(kFamily);
  const std::vector<Value> values(8, Value(30'000, std::byte{7}));
  put(*bulk, 0, values);
  fs::path table;
  for (const auto& entry : fs::directory_iterator(folder.path() + "/store"))
    if (entry.path().extension() == ".sst") table = entry.path();
  std::ifstream in(table, std::ios::binary);
  const std::string whole{std::istreambuf_iterator<char>(in), {}};
  std::vector<std::string> keys;
  for (uint32_t i = 0; i < 8; ++i) keys.push_back(key_of(i));
  size_t errors = 0, errors_together = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    SeededRandom random(seed);
    std::string damaged = whole;
    const size_t value = random.below(8) * (whole.size() / 8);
    const size_t from = random.below(2) ? value : random.below(whole.size()), bytes = 1 + random.below(200);
    for (size_t i = from; i < std::min(from + bytes, whole.size()); ++i)
      damaged[i] = random.below(2) ? '\0' : static_cast<char>(random.next());
    std::fstream(table, std::ios::binary | std::ios::in | std::ios::out) << damaged;
    for (uint32_t i = 0; i < 8; ++i) {
      try {
        const auto read = get(*bulk, key_of(i));
        ASSERT_TRUE(read) << "seed " << seed;
        ASSERT_EQ(read->size(), values[i].size()) << "seed " << seed;
        errors += *read != values[i];
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::kMalformed) << error.message();
        ++errors;
      }
    }
    try {
      bool differs = false;
      bulk->read_many(keys, [&](size_t place, std::span<const std::byte> got) {
        ASSERT_EQ(got.size(), values[place].size());
        differs = differs || !std::equal(got.begin(), got.end(), values[place].begin());
      });
      errors_together += differs;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kMalformed) << error.message();
      ++errors_together;
    }
  }
  EXPECT_GT(errors, 30u);
  EXPECT_GT(errors_together, 30u);
}

// The table of the largest size, of which there is one.
fs::path largest_table(const std::string& folder) {
  fs::path found;
  for (const auto& entry : fs::directory_iterator(folder + "/store"))
    if (entry.path().extension() == ".sst" && (found.empty() || entry.file_size() > fs::file_size(found)))
      found = entry.path();
  return found;
}

void flip_byte(const fs::path& file, uint64_t offset) {
  std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
  bytes.seekg(static_cast<std::streamoff>(offset));
  const int was = bytes.get();
  bytes.seekp(static_cast<std::streamoff>(offset));
  bytes.put(static_cast<char>(was ^ 1));
}

bool reads_directly(const fs::path& file) {
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_DIRECT);
  if (descriptor >= 0) ::close(descriptor);
  return descriptor >= 0;
}

TEST(RocksBulk, ALargeValueComesInParts) {
  TemporaryFolder folder;
  SeededRandom random(7);
  RocksStore store(folder.path(), {kFamily});
  const auto bulk = store.bulk(kFamily);
  std::vector<Value> values;
  for (const size_t bytes : {1u << 20, (1u << 20) + 8, 3'000'001u, 0u, 5u, 700'000u})
    values.push_back(random_value(random, bytes));
  put(*bulk, 0, values);
  for (int round = 0; round < 2; ++round)
    for (uint32_t i = 0; i < values.size(); ++i) EXPECT_EQ(get_in_parts(*bulk, key_of(i)), values[i]) << i;
  if (!reads_directly(folder.path())) return;
  size_t parts = 0;
  bulk->read_in_parts(key_of(0), [&](uint64_t, uint64_t, std::span<const std::byte>) { ++parts; });
  EXPECT_GE(parts, 1u);
  EXPECT_LE(parts, 2u);
}

// RocksDB's sum behind a value is RocksDB's affair: who reads has one of his own.
TEST(RocksBulk, ATableThatRocksDbHasReadFromIsReadDirectly) {
  TemporaryFolder folder;
  SeededRandom random(6);
  std::vector<Value> values;
  for (int i = 0; i < 6; ++i) values.push_back(random_value(random, 40'000));
  {
    RocksStore store(folder.path(), {kFamily});
    put(*store.bulk(kFamily), 0, values);
  }
  const fs::path table = largest_table(folder.path());
  std::ifstream in(table, std::ios::binary);
  const std::string whole{std::istreambuf_iterator<char>(in), {}};
  const auto end_of = [&](const Value& value) {
    return whole.find({reinterpret_cast<const char*>(value.data()), value.size()}) + value.size();
  };
  constexpr size_t kRestarts = 8, kKind = 1;  // then the sum
  for (const size_t i : {1u, 2u, 3u}) flip_byte(table, end_of(values[i]) + kRestarts + kKind);
  RocksStore store(folder.path(), {kFamily});
  const auto bulk = store.bulk(kFamily);
  const std::vector<std::string> keys = {key_of(2), key_of(3), key_of(4)};
  std::vector<Value> together;
  const auto take = [&](size_t, std::span<const std::byte> value) {
    together.emplace_back(value.begin(), value.end());
  };
  EXPECT_EQ(error_of([&] { get(*bulk, key_of(1)); }).code(), ErrorCode::kMalformed);
  EXPECT_EQ(error_of([&] { bulk->read_many(keys, take); }).code(), ErrorCode::kMalformed);
  EXPECT_EQ(*get(*bulk, key_of(0)), values[0]);
  if (!reads_directly(table)) {
    EXPECT_EQ(error_of([&] { get(*bulk, key_of(1)); }).code(), ErrorCode::kMalformed);
    return;
  }
  EXPECT_EQ(*get(*bulk, key_of(1)), values[1]);
  bulk->read_many(keys, take);
  EXPECT_EQ(together, std::vector<Value>(values.begin() + 2, values.begin() + 5));
  bulk->erase_range(key_of(0), key_of(10));
  EXPECT_FALSE(get(*bulk, key_of(1)));
  EXPECT_LT(bytes_in(folder.path()), 100'000u);
}

// Damaged where RocksDB looks at opening, cut short or gone: all but the table's values is as before.
TEST(RocksBulk, AStoreOpensWithoutATable) {
  constexpr auto kTolerated = RocksStore::Damage::kOfTablesTolerated;
  const std::vector<std::function<void(const fs::path&)>> damages = {
      [](const fs::path& table) { flip_byte(table, fs::file_size(table) - 200); },
      [](const fs::path& table) { flip_byte(table, fs::file_size(table) - 3); },
      [](const fs::path& table) { fs::resize_file(table, fs::file_size(table) / 2); },
      [](const fs::path& table) { fs::resize_file(table, 0); },
      [](const fs::path& table) { fs::remove(table); },
  };
  for (size_t i = 0; i < damages.size(); ++i) {
    SCOPED_TRACE(i);
    TemporaryFolder folder;
    const Value small(3000, std::byte{1}), large(30'000, std::byte{2});
    {
      RocksStore store(folder.path(), {kFamily, "pins"});
      store.family("pins")->put("key", "value");
      for (const uint32_t first : {0u, 200u}) put(*store.bulk(kFamily), first, {small, small});
      put(*store.bulk(kFamily), 100, {large, large});
    }
    const fs::path table = largest_table(folder.path());
    damages[i](table);
    EXPECT_EQ(error_of([&] { RocksStore store(folder.path(), {kFamily}); }).code(), ErrorCode::kMalformed);
    const auto has_the_rest = [&](RocksStore& store) {
      EXPECT_EQ(store.family("pins")->get("key"), "value");
      for (const uint32_t key : {0u, 1u, 200u, 201u})
        EXPECT_EQ(get(*store.bulk(kFamily), key_of(key)), small);
    };
    for (const auto access : {RocksStore::Access::kRead, RocksStore::Access::kWrite}) {
      RocksStore store(folder.path(), {kFamily, "pins"}, access, kTolerated);
      has_the_rest(store);
      const auto bulk = store.bulk(kFamily);
      EXPECT_EQ(error_of([&] { get(*bulk, key_of(100)); }).code(), ErrorCode::kMalformed);
      const std::vector<std::string> keys = {key_of(1), key_of(101)};
      EXPECT_EQ(error_of([&] { bulk->read_many(keys, [](size_t, std::span<const std::byte>) {}); }).code(),
                ErrorCode::kMalformed);
    }
    {
      RocksStore store(folder.path(), {kFamily, "pins"}, RocksStore::Access::kWrite, kTolerated);
      const auto bulk = store.bulk(kFamily);
      bulk->erase_range(key_of(0), key_of(1));  // beside it
      EXPECT_FALSE(get(*bulk, key_of(0)));
      put(*bulk, 0, {small});
      bulk->erase_range(key_of(100), key_of(200));
      EXPECT_FALSE(get(*bulk, key_of(100)));
      store.family("pins")->put("other", "value");
    }
    EXPECT_FALSE(fs::exists(table));
    RocksStore store(folder.path(), {kFamily, "pins"});
    has_the_rest(store);
    EXPECT_EQ(store.family("pins")->get("other"), "value");
  }
}

// A store that was killed while it had records in its log, with a damaged table besides.
TEST(RocksBulk, DamageOfATableHidesNoDamageOfTheLog) {
  TemporaryFolder folder, killed;
  {
    RocksStore store(folder.path(), {kFamily, "pins"});
    put(*store.bulk(kFamily), 100, {Value(30'000, std::byte{2})});
    for (int i = 0; i < 20; ++i) store.family("pins")->put("key" + std::to_string(i), std::string(100, 'v'));
    fs::copy(folder.path() + "/store", killed.path() + "/store", fs::copy_options::recursive);
  }
  const fs::path table = largest_table(killed.path());
  flip_byte(table, fs::file_size(table) - 200);
  fs::path log;
  for (const auto& entry : fs::directory_iterator(killed.path() + "/store"))
    if (entry.path().extension() == ".log" && entry.file_size() > 0) log = entry.path();
  ASSERT_FALSE(log.empty());
  const auto bytes = fs::file_size(log);
  const auto open = [&](RocksStore::Access access) {
    return RocksStore(killed.path(), {kFamily, "pins"}, access, RocksStore::Damage::kOfTablesTolerated);
  };
  flip_byte(log, bytes / 2);
  for (const auto access : {RocksStore::Access::kRead, RocksStore::Access::kWrite}) {
    EXPECT_EQ(error_of([&] { open(access); }).code(), ErrorCode::kMalformed);
    EXPECT_EQ(fs::file_size(log), bytes);
  }
  flip_byte(log, bytes / 2);
  fs::resize_file(log, bytes - 50);  // the last record was being written
  for (const auto access : {RocksStore::Access::kRead, RocksStore::Access::kWrite}) {
    RocksStore store = open(access);
    for (int i = 0; i < 20; ++i)
      EXPECT_EQ(store.family("pins")->get("key" + std::to_string(i)).has_value(), i < 19) << i;
  }
}

// A process that was killed noted the list, too, whenever it wrote a table: damage where the list may end
// hides none.
TEST(RocksBulk, ADamagedListOfAKilledStoreIsToldOrCostsNothing) {
  TemporaryFolder folder, killed;
  const Value value(30'000, std::byte{2});
  const auto open = [](const std::string& at, RocksStore::Access access) {
    return RocksStore(at, {kFamily, "pins"}, access, RocksStore::Damage::kOfTablesTolerated);
  };
  {
    RocksStore store = open(folder.path(), RocksStore::Access::kWrite);
    put(*store.bulk(kFamily), 100, {value});
    store.family("pins")->put("key", "value");
    fs::copy(folder.path() + "/store", killed.path() + "/store", fs::copy_options::recursive);
  }
  fs::path list;
  for (const auto& entry : fs::directory_iterator(killed.path() + "/store"))
    if (entry.path().filename().string().rfind("MANIFEST", 0) == 0) list = entry.path();
  size_t told = 0;
  const uint64_t bytes = fs::file_size(list);
  for (uint64_t at = 0; at < bytes; ++at) {
    flip_byte(list, at);
    try {
      RocksStore store = open(killed.path(), RocksStore::Access::kRead);
      ASSERT_TRUE(store.has("pins") && store.has(kFamily)) << at;
      EXPECT_EQ(store.family("pins")->get("key"), "value") << at;
      EXPECT_EQ(get(*store.bulk(kFamily), key_of(100)), value) << at;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kMalformed) << error.message();
      ++told;
    }
    flip_byte(list, at);
  }
  EXPECT_EQ(told, bytes);
}

TEST(RocksBulk, HalfWrittenTablesAreRemovedAtOpening) {
  TemporaryFolder folder;
  { RocksStore store(folder.path(), {kFamily}); }
  const std::string left = folder.path() + "/store/incoming/bulk.test-0.sst";
  std::ofstream(left) << "half a table";
  RocksStore store(folder.path(), {kFamily});
  EXPECT_FALSE(fs::exists(left));
  put(*store.bulk(kFamily), 0, {Value(10)});
  EXPECT_TRUE(fs::is_empty(folder.path() + "/store/incoming"));
}

TEST(RocksStore, IsReadBesideItsWriterWithoutAChange) {
  TemporaryFolder folder;
  EXPECT_EQ(error_of([&] { RocksStore none(folder.path(), {}, RocksStore::Access::kRead); }).code(),
            ErrorCode::kNotFound);
  EXPECT_TRUE(fs::is_empty(folder.path()));
  RocksStore writer(folder.path(), {kFamily, "pins"});
  writer.family("pins")->put("key", "value");
  put(*writer.bulk(kFamily), 0, {Value(100, std::byte{1})});
  std::map<std::string, uint64_t> before, after;
  const auto list = [&](std::map<std::string, uint64_t>& files) {
    for (const auto& entry : fs::recursive_directory_iterator(folder.path()))
      files[entry.path()] = entry.is_regular_file() ? entry.file_size() : 0;
  };
  list(before);
  RocksStore reader(folder.path(), {"other"}, RocksStore::Access::kRead);
  EXPECT_EQ(reader.family("pins")->get("key"), "value");
  EXPECT_EQ(*get(*reader.bulk(kFamily), key_of(0)), Value(100, std::byte{1}));
  EXPECT_FALSE(reader.has("other"));
  EXPECT_EQ(error_of([&] { reader.bulk(kFamily)->begin(); }).code(), ErrorCode::kInvalidArgument);
  EXPECT_THROW(reader.family("pins")->put("key", "other"), Error);
  list(after);
  EXPECT_EQ(before, after);
}

TEST(RocksStore, AnotherVersionIsRefusedAndLeftAlone) {
  TemporaryFolder folder;
  { RocksStore store(folder.path(), {"pins"}); }
  const std::string version = folder.path() + "/store/CARAVAN";
  ASSERT_TRUE(fs::exists(version));
  const auto refused = [&](const std::string& text, ErrorCode code, const std::string& word) {
    std::ofstream(version, std::ios::trunc) << text;
    std::map<std::string, fs::file_time_type> before, after;
    for (const auto& entry : fs::directory_iterator(folder.path() + "/store"))
      before[entry.path()] = entry.last_write_time();
    for (const auto access : {RocksStore::Access::kWrite, RocksStore::Access::kRead}) {
      const Error error = error_of([&] { RocksStore store(folder.path(), {"pins"}, access); });
      EXPECT_EQ(error.code(), code) << error.message();
      EXPECT_NE(error.message().find(word), std::string::npos) << error.message();
      EXPECT_NE(error.message().find(folder.path()), std::string::npos) << error.message();
    }
    for (const auto& entry : fs::directory_iterator(folder.path() + "/store"))
      after[entry.path()] = entry.last_write_time();
    EXPECT_EQ(before, after);
  };
  refused("caravan store 2\n", ErrorCode::kUnsupported, "version 2");
  refused("something else", ErrorCode::kMalformed, "damaged");
}

}  // namespace
}  // namespace caravan
