#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "shards/shard_store.h"
#include "shards/store_import.h"
#include "shards/store_source.h"
#include "store/memory_bulk.h"
#include "store/memory_store.h"
#include "store_models.h"
#include "tests/support/temporary_folder.h"

namespace caravan {

// A shard store in memory that can be opened again, and a folder for models.
class StoreTest : public testing::Test {
 protected:
  void open(uint64_t table_bytes = 64 << 10) {
    store_ = std::make_shared<ShardStore>(
        records_, bulk_, ShardStoreOptions{.name = "the test store", .table_bytes = table_bytes});
  }
  std::string write(const RandomModel& model, const std::string& name) const {
    write_model(model, folder_.path() + "/" + name);
    return folder_.path() + "/" + name;
  }
  ImportResult import(const std::string& path, bool copy = true) {
    ImportOptions options;
    options.copy = copy;
    return import_model(*store_, read_manifest(path), options);
  }

  test::TemporaryFolder folder_;
  std::function<MemoryBulk::Fault(MemoryBulk::Operation, std::string_view)> inject_;
  std::shared_ptr<MemoryStore> records_ = std::make_shared<MemoryStore>();
  std::shared_ptr<MemoryBulk> bulk_ =
      std::make_shared<MemoryBulk>([this](MemoryBulk::Operation operation, std::string_view key) {
        return inject_ ? inject_(operation, key) : MemoryBulk::Fault::kNone;
      });
  std::shared_ptr<ShardStore> store_;
};

inline std::vector<std::byte> bytes_of(const Manifest& manifest, const Tensor& tensor) {
  std::vector<std::byte> bytes(tensor.extent.length);
  manifest.source->read(tensor.extent.file, tensor.extent.offset, bytes);
  return bytes;
}

// The same model, tensor by tensor, wherever its bytes lie.
inline void expect_same_model(const Manifest& a, const Manifest& b) {
  ASSERT_EQ(a.groups.size(), b.groups.size());
  for (size_t i = 0; i < a.groups.size(); ++i) {
    ASSERT_EQ(a.groups[i].id, b.groups[i].id);
    ASSERT_EQ(a.groups[i].tensors.size(), b.groups[i].tensors.size());
    for (size_t t = 0; t < a.groups[i].tensors.size(); ++t)
      ASSERT_EQ(bytes_of(a, a.groups[i].tensors[t]), bytes_of(b, b.groups[i].tensors[t]))
          << to_string(a.groups[i].id);
  }
  EXPECT_EQ(a.fingerprint(), b.fingerprint());
  EXPECT_EQ(a.bytes(), b.bytes());
  EXPECT_EQ(a.tokenizer_json, b.tokenizer_json);
}

inline Manifest opened(const std::shared_ptr<ShardStore>& store, const std::string& name) {
  return open_record(store, *store->find_model(name));
}

}  // namespace caravan
