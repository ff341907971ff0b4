#include <gtest/gtest.h>

#include "base/limits.h"
#include "base/random.h"
#include "shards/store_codec.h"
#include "shards/store_record.h"
#include "store_models.h"
#include "tests/support/sanitized.h"
#include "tests/support/temporary_folder.h"

namespace caravan {
namespace {

ModelRecord record_of(const std::string& path) {
  ModelRecord record;
  record.manifest = read_manifest(path);
  record.fingerprint = record.manifest.fingerprint();
  const Source& source = *record.manifest.source;
  for (uint32_t i = 0; i < source.file_count(); ++i)
    record.files.push_back({path + "/" + std::to_string(i), source.file_bytes(i), 17});
  for (size_t i = 0; i < record.manifest.groups.size(); ++i)
    record.hashes.push_back(sha256(std::as_bytes(std::span(&i, 1))));
  record.manifest.source = nullptr;
  return record;
}

void expect_same(const ModelRecord& a, const ModelRecord& b) {
  EXPECT_EQ(a.fingerprint, b.fingerprint);
  EXPECT_EQ(a.copied, b.copied);
  EXPECT_EQ(a.files, b.files);
  EXPECT_EQ(a.hashes, b.hashes);
  const Manifest &m = a.manifest, &n = b.manifest;
  EXPECT_EQ(m.origin, n.origin);
  EXPECT_EQ(m.name, n.name);
  EXPECT_EQ(m.path, n.path);
  EXPECT_EQ(m.architecture, n.architecture);
  EXPECT_EQ(m.metadata.where(), n.metadata.where());
  EXPECT_EQ(m.metadata.values(), n.metadata.values());
  EXPECT_EQ(m.tokenizer_json, n.tokenizer_json);
  EXPECT_EQ(m.tokenizer_config_json, n.tokenizer_config_json);
  EXPECT_EQ(m.generation_config_json, n.generation_config_json);
  EXPECT_EQ(m.chat_template, n.chat_template);
  EXPECT_EQ(m.ignored, n.ignored);
  EXPECT_EQ(m.layer_count, n.layer_count);
  EXPECT_EQ(m.bytes(), n.bytes());
  // Without a source the fingerprint is one of names, types and shapes.
  EXPECT_EQ(m.fingerprint(), n.fingerprint());
}

// Its bytes with a right checksum, whatever they say.
std::string sealed(std::string_view body) {
  std::string bytes(body);
  const uint64_t sum = xxh3(std::as_bytes(std::span(bytes)));
  return bytes.append(reinterpret_cast<const char*>(&sum), sizeof sum);
}

TEST(StoreRecord, KeepsAllOfAManifest) {
  ModelRecord demo = record_of(demo_gguf());
  demo.copied = true;
  demo.manifest.ignored = {"a.tensor"};
  expect_same(decode_model_record(encode_model_record(demo), "demo"), demo);
  test::TemporaryFolder folder;
  SeededRandom random(1);
  for (int i = 0; i < 20; ++i) {
    write_model(random_model(random), folder.path() + "/model");
    const ModelRecord record = record_of(folder.path() + "/model");
    expect_same(decode_model_record(encode_model_record(record), "random"), record);
  }
}

TEST(StoreRecord, EveryFlippedBitAndEveryCutIsFound) {
  test::TemporaryFolder folder;
  write_model({.experts = true}, folder.path() + "/model");
  const std::string good = encode_model_record(record_of(folder.path() + "/model"));
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 1 << i % 8);
    expect_error(ErrorCode::kMalformed, {"where", "damaged"}, [&] { decode_model_record(bad, "where"); });
    EXPECT_THROW(decode_model_record(good.substr(0, i), "where"), Error);
  }
}

// A record from elsewhere has a right checksum and may say anything: it is refused or sound.
TEST(StoreRecord, HostileRecordsAreRefusedOrSound) {
  test::TemporaryFolder folder;
  write_model({.experts = true, .layers = 2}, folder.path() + "/model");
  const ModelRecord record = record_of(folder.path() + "/model");
  std::string body = encode_model_record(record);
  body.resize(body.size() - sizeof(uint64_t));
  SeededRandom random(2);
  size_t refused = 0;
  for (uint32_t i = 0; i < test::fewer(20'000); ++i) {
    std::string bad = body;
    for (uint64_t n = 1 + random.below(3); n > 0; --n) {
      const size_t at = random.below(bad.size());
      bad[at] = static_cast<char>(random.below(3) ? random.next() : 0xff);
    }
    if (random.below(4) == 0) bad.resize(random.below(bad.size()));
    try {
      const ModelRecord found = decode_model_record(sealed(bad), "where");
      ASSERT_EQ(found.hashes.size(), found.manifest.groups.size());
      for (const WeightGroup& group : found.manifest.groups)
        for (const Tensor& tensor : group.tensors) {
          ASSERT_LT(tensor.extent.file, found.files.size());
          ASSERT_LE(tensor.extent.offset + tensor.extent.length, found.files[tensor.extent.file].bytes);
          ASSERT_EQ(tensor.extent.length, tensor.rows * row_bytes(tensor.type, tensor.columns));
        }
    } catch (const Error& error) {
      ASSERT_TRUE(error.code() == ErrorCode::kMalformed || error.code() == ErrorCode::kLimit);
      ++refused;
    }
  }
  EXPECT_GT(refused, test::fewer(5'000));
}

TEST(StoreRecord, SizesAreCheckedBeforeTheyAreBelieved) {
  RecordWriter out("caravan model 1");
  out.hash({});
  out.number(uint8_t{0});
  out.number(uint8_t{0});
  out.number(uint64_t{1} << 60);  // of the name
  expect_error(ErrorCode::kLimit, {"where", "256"}, [&] { decode_model_record(out.finish(), "where"); });
}

TEST(StoreRecord, HashesGoAndComeBack) {
  HashRecord record;
  record.files = {{"a", 1, 2}, {"b", 3, -4}};
  record.groups = {{sha256({}), Hash256{}}, {Hash256{}, sha256({})}};
  const HashRecord found = decode_hash_record(encode_hash_record(record), "where");
  EXPECT_EQ(found.files, record.files);
  EXPECT_EQ(found.groups, record.groups);
  EXPECT_THROW(decode_model_record(encode_hash_record(record), "where"), Error);
}

}  // namespace
}  // namespace caravan
