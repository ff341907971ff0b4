#include "shards/gguf.h"

#include <cstring>
#include <limits>

#include "base/random.h"
#include "fixtures.h"
#include "shards/gguf_writer.h"

namespace caravan {
namespace {

constexpr uint32_t kF32 = 0, kQ8_0 = 8;

void expect_refused(ErrorCode code, std::vector<std::string> words, const GgufBytes& file) {
  words.push_back("x.gguf");
  expect_error(code, words, [&] { read_gguf(file.bytes(), "x.gguf"); });
}

TEST(Gguf, ReadsEveryMetadataType) {
  GgufBytes file;
  file.header(0, 15);
  file.key("u8", GgufType::kU8).u8(200);
  file.key("i8", GgufType::kI8).u8(0xff);
  file.key("u16", GgufType::kU16).u8(0x34).u8(0x12);
  file.key("i16", GgufType::kI16).u8(0xfe).u8(0xff);
  file.key("u32", GgufType::kU32).u32(7);
  file.key("i32", GgufType::kI32).u32(0xfffffffdu);
  file.key("f32", GgufType::kF32).f32(1.5f);
  file.key("bool", GgufType::kBool).u8(1);
  file.key("string", GgufType::kString).text("not \xff utf-8");
  file.key("u64", GgufType::kU64).u64(1ull << 40);
  file.key("i64", GgufType::kI64).u64(~0ull);
  file.key("f64", GgufType::kF64).u64(0x4004000000000000ull);
  file.key("array", GgufType::kArray).type(GgufType::kI32).u64(2).u32(1).u32(2);
  file.key("empty", GgufType::kArray).type(GgufType::kString).u64(0);
  file.key("nested", GgufType::kArray).type(GgufType::kArray).u64(2);
  file.type(GgufType::kString).u64(1).text("a");
  file.type(GgufType::kBool).u64(2).u8(0).u8(1);
  const Metadata metadata = read_gguf(file.bytes(), "x.gguf").metadata;
  EXPECT_EQ(metadata.integer("u8"), 200u);
  EXPECT_EQ(metadata.number("i8"), -1);
  EXPECT_EQ(metadata.integer("u16"), 0x1234u);
  EXPECT_EQ(metadata.number("i16"), -2);
  EXPECT_EQ(metadata.integer("u32"), 7u);
  EXPECT_EQ(metadata.number("i32"), -3);
  EXPECT_EQ(metadata.number("f32"), 1.5);
  EXPECT_EQ(metadata.boolean("bool"), true);
  EXPECT_EQ(metadata.text("string"), "not \xff utf-8");
  EXPECT_EQ(metadata.integer("u64"), 1ull << 40);
  EXPECT_EQ(metadata.number("i64"), -1);
  EXPECT_EQ(metadata.number("f64"), 2.5);
  EXPECT_EQ(metadata.integers("array"), (std::vector<uint64_t>{1, 2}));
  EXPECT_EQ(metadata.numbers("array"), (std::vector<double>{1, 2}));
  EXPECT_EQ(metadata.integers("empty"), std::vector<uint64_t>{});
  ASSERT_TRUE(metadata.texts("empty"));
  EXPECT_EQ(*metadata.texts("nested.0"), TextList{"a"});
  EXPECT_EQ(metadata.booleans("nested.1"), (std::vector<bool>{false, true}));
  EXPECT_FALSE(metadata.integer("not there"));
}

TEST(Gguf, NamesTheKeyOfAnotherType) {
  GgufBytes file;
  file.header(0, 2).key("k", GgufType::kString).text("v").key("n", GgufType::kI32).u32(0xffffffffu);
  const Metadata metadata = read_gguf(file.bytes(), "x.gguf").metadata;
  expect_error(ErrorCode::kMalformed, {"x.gguf", "k"}, [&] { metadata.integer("k"); });
  expect_error(ErrorCode::kMalformed, {"x.gguf", "k"}, [&] { metadata.texts("k"); });
  expect_error(ErrorCode::kMalformed, {"x.gguf", "n"}, [&] { metadata.integer("n"); });
}

TEST(Gguf, ReadsTensorsOfVersionsTwoAndThree) {
  for (const uint32_t version : {2u, 3u}) {
    GgufBytes file;
    file.header(2, 1, version).key("general.alignment", GgufType::kU32).u32(64);
    file.tensor("b", {32, 3}, kQ8_0, 64).tensor("a", {4, 2, 2}, kF32, 0).data(64 + 102, 64);
    const GgufFile gguf = read_gguf(file.bytes(), "x.gguf");
    EXPECT_EQ(gguf.version, version);
    ASSERT_EQ(gguf.tensors.size(), 2u);
    EXPECT_EQ(gguf.tensors[0].bytes, 3u * 34u);
    EXPECT_EQ(gguf.tensors[1].bytes, 64u);
    EXPECT_EQ(gguf.tensors[1].offset % 64, 0u);
    EXPECT_EQ(gguf.tensors[0].offset, gguf.tensors[1].offset + 64);
  }
}

TEST(Gguf, RefusesForeignFiles) {
  expect_refused(ErrorCode::kMalformed, {"GGUF"}, GgufBytes());
  expect_refused(ErrorCode::kMalformed, {"GGUF"}, GgufBytes().u32(0x12345678).u32(3));
  expect_refused(ErrorCode::kUnsupported, {"version 1"}, GgufBytes().header(0, 0, 1));
  expect_refused(ErrorCode::kUnsupported, {"version 4"}, GgufBytes().header(0, 0, 4));
  expect_refused(ErrorCode::kUnsupported, {"big-endian"}, GgufBytes().header(0, 0, 0x03000000));
}

TEST(Gguf, RefusesCountsThatTheFileCannotHold) {
  const uint64_t huge = std::numeric_limits<uint64_t>::max();
  expect_refused(ErrorCode::kLimit, {"tensors"}, GgufBytes().header(huge, 0));
  expect_refused(ErrorCode::kLimit, {"entries"}, GgufBytes().header(0, huge));
  expect_refused(ErrorCode::kMalformed, {"the header", "cut short", "ends at byte 24", "more bytes"},
                 GgufBytes().header(1000, 0));
  expect_refused(ErrorCode::kMalformed, {"ends"}, GgufBytes().header(0, 1000));
  for (const uint64_t count : {huge, huge / 8, uint64_t{1} << 61})
    expect_refused(ErrorCode::kLimit, {"key k"},
                   GgufBytes().header(0, 1).key("k", GgufType::kArray).type(GgufType::kU64).u64(count));
  expect_refused(ErrorCode::kMalformed, {"k:", "ends"},
                 GgufBytes().header(0, 1).key("k", GgufType::kArray).type(GgufType::kU64).u64(1u << 24));
  expect_refused(ErrorCode::kLimit, {"k:"}, GgufBytes().header(0, 1).key("k", GgufType::kString).u64(huge));
  expect_refused(ErrorCode::kMalformed, {"k:", "ends"},
                 GgufBytes().header(0, 1).key("k", GgufType::kString).u64(100).u64(0));
  expect_refused(ErrorCode::kLimit, {"key"}, GgufBytes().header(0, 1).u64(huge).data(64));
}

TEST(Gguf, RefusesWrongMetadata) {
  expect_refused(ErrorCode::kMalformed, {"key k", "13"}, GgufBytes().header(0, 1).text("k").u32(13).u64(0));
  expect_refused(ErrorCode::kMalformed, {"key k", "2"},
                 GgufBytes().header(0, 1).key("k", GgufType::kBool).u8(2));
  expect_refused(ErrorCode::kMalformed, {"key k", "twice"},
                 GgufBytes().header(0, 2).key("k", GgufType::kU8).u8(2).key("k", GgufType::kU8).u8(2));
  GgufBytes deep;
  deep.header(0, 1).key("k", GgufType::kArray);
  for (int i = 0; i < 100; ++i) deep.type(GgufType::kArray).u64(1);
  expect_refused(ErrorCode::kLimit, {"k.0.0", "nested"}, deep);
  for (const uint32_t alignment : {0u, 3u, 48u, 1u << 30}) {
    GgufBytes file;
    file.header(0, 1).key("general.alignment", GgufType::kU32).u32(alignment);
    expect_refused(ErrorCode::kMalformed, {"general.alignment"}, file);
  }
}

TEST(Gguf, RefusesWrongTensors) {
  const uint64_t huge = uint64_t{1} << 63;
  const auto one = [](std::vector<uint64_t> dimensions, uint32_t type, uint64_t offset) {
    return GgufBytes().header(1, 0).tensor("t.weight", dimensions, type, offset).data(1024);
  };
  EXPECT_NO_THROW(read_gguf(one({32, 2}, kF32, 0).bytes(), "x.gguf"));
  expect_refused(ErrorCode::kMalformed, {"t.weight", "dimensions"}, one({}, kF32, 0));
  expect_refused(ErrorCode::kMalformed, {"t.weight", "dimensions"}, one({1, 1, 1, 1, 1}, kF32, 0));
  expect_refused(ErrorCode::kMalformed, {"t.weight", "0"}, one({32, 0}, kF32, 0));
  expect_refused(ErrorCode::kMalformed, {"t.weight", "64 bits"}, one({huge, 4}, kF32, 0));
  expect_refused(ErrorCode::kMalformed, {"t.weight", "64 bits"}, one({huge}, kF32, 0));
  expect_refused(ErrorCode::kMalformed, {"t.weight", "multiple"}, one({33}, kQ8_0, 0));
  expect_refused(ErrorCode::kMalformed, {"t.weight", "alignment"}, one({8}, kF32, 8));
  expect_refused(ErrorCode::kMalformed, {"t.weight", "past"}, one({8}, kF32, 1024));
  expect_refused(ErrorCode::kMalformed, {"t.weight", "past"}, one({8}, kF32, huge));
  expect_refused(ErrorCode::kMalformed, {"t.weight", "past"}, one({8}, kF32, ~uint64_t{31}));
  expect_refused(ErrorCode::kMalformed, {"t.weight", "past"}, one({1u << 20, 1u << 20}, kF32, 0));
  expect_refused(ErrorCode::kUnsupported, {"t.weight", "IQ2_XS"}, one({256}, 17, 0));
  expect_refused(ErrorCode::kMalformed, {"t.weight", "4711"}, one({256}, 4711, 0));
  expect_refused(ErrorCode::kMalformed, {"t", "twice"},
                 GgufBytes().header(2, 0).tensor("t", {8}, kF32, 0).tensor("t", {8}, kF32, 32).data(64));
  expect_refused(ErrorCode::kMalformed, {"a", "b", "overlap"},
                 GgufBytes().header(2, 0).tensor("a", {16}, kF32, 0).tensor("b", {8}, kF32, 32).data(64));
  expect_refused(ErrorCode::kMalformed, {"overlap"},
                 GgufBytes().header(2, 0).tensor("a", {8}, kF32, 0).tensor("b", {8}, kF32, 0).data(64));
}

TEST(Gguf, RefusesTheDemoModelCutAnywhere) {
  const auto whole = read_bytes(demo_gguf());
  const GgufFile gguf = read_gguf(whole, "demo");
  uint64_t end = 0, header = whole.size();
  for (const GgufTensor& tensor : gguf.tensors) {
    end = std::max(end, tensor.offset + tensor.bytes);
    header = std::min(header, tensor.offset);
  }
  SeededRandom random(1);
  for (int turn = 0; turn < 300; ++turn) {
    const size_t length = random.below(turn % 2 ? end : header);
    EXPECT_THROW(read_gguf(std::span(whole).first(length), "cut"), Error) << length;
  }
}

// For who reads no tensor, whatever follows the header may be missing; the header itself may not.
TEST(Gguf, TheHeaderAloneDoesForWhoReadsNoTensor) {
  const auto whole = read_bytes(demo_gguf());
  const GgufFile gguf = read_gguf(whole, "demo");
  uint64_t header = whole.size();
  for (const GgufTensor& tensor : gguf.tensors) header = std::min(header, tensor.offset);
  const auto first = std::span(whole).first(header);
  const GgufFile alone = read_gguf(first, "demo", GgufPart::kHeader);
  ASSERT_EQ(alone.tensors.size(), gguf.tensors.size());
  for (size_t i = 0; i < gguf.tensors.size(); ++i) EXPECT_EQ(alone.tensors[i].offset, gguf.tensors[i].offset);
  EXPECT_THROW(read_gguf(first, "demo"), Error);
  SeededRandom random(2);
  for (int turn = 0; turn < 100; ++turn) {
    // What fills the header up to the first tensor's place is no part of it.
    const size_t length = random.below(header - kGgufDefaultAlignment);
    EXPECT_THROW(read_gguf(first.first(length), "cut", GgufPart::kHeader), Error) << length;
  }
}

// A flipped bit in the header gives a file that is read or refused, never anything else.
TEST(Gguf, SurvivesFlippedBits) {
  GgufBytes file;
  file.header(2, 3).key("general.alignment", GgufType::kU32).u32(32).key("s", GgufType::kString).text("abc");
  file.key("a", GgufType::kArray).type(GgufType::kArray).u64(1).type(GgufType::kU8).u64(2).u8(1).u8(2);
  file.tensor("x", {32, 2}, kQ8_0, 0).tensor("y", {4}, kF32, 96).data(128);
  const auto whole = file.bytes();
  ASSERT_NO_THROW(read_gguf(whole, "x"));
  size_t refused = 0;
  for (size_t bit = 0; bit < 8 * whole.size(); ++bit) {
    auto bytes = whole;
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
    try {
      read_gguf(bytes, "x");
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 500u);
}

TEST(GgufWriter, WritesWhatTheReaderReads) {
  Metadata metadata("m");
  metadata.set("bool", true);
  metadata.set("small", uint64_t{5});
  metadata.set("large", uint64_t{1} << 40);
  metadata.set("negative", int64_t{-5});
  metadata.set("number", 0.1);
  metadata.set("text", std::string("abc"));
  metadata.set("texts", TextList{"a", "", "c"});
  metadata.set("integers", std::vector<int64_t>{1, -2});
  metadata.set("wide", std::vector<uint64_t>{1, 1ull << 50});
  metadata.set("flags", std::vector<bool>{true, false, true});
  metadata.set("numbers", std::vector<double>{0.5, 2});
  metadata.set("none", TextList());
  metadata.set("general.alignment", uint64_t{64});
  const std::string path = testing::TempDir() + "caravan-writer-test.gguf";
  std::vector<std::byte> first(34 * 3, std::byte{1}), second(20, std::byte{2});
  GgufWriter writer(path, metadata, {{"q", TensorType::kQ8_0, {32, 3}}, {"f", TensorType::kF32, {5}}});
  writer.append(std::span(first).first(50));
  writer.append(std::span(first).subspan(50));
  writer.append(second);
  EXPECT_TRUE(read_bytes(path).empty()) << "the file must not be there before it is finished";
  writer.finish();
  const auto bytes = read_bytes(path);
  const GgufFile gguf = read_gguf(bytes, path);
  EXPECT_EQ(gguf.metadata.values(), metadata.values());
  ASSERT_EQ(gguf.tensors.size(), 2u);
  EXPECT_EQ(gguf.tensors[0].offset % 64, 0u);
  EXPECT_EQ(std::memcmp(bytes.data() + gguf.tensors[0].offset, first.data(), first.size()), 0);
  EXPECT_EQ(std::memcmp(bytes.data() + gguf.tensors[1].offset, second.data(), second.size()), 0);
  std::remove(path.c_str());
}

}  // namespace
}  // namespace caravan
