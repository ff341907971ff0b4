#include "shards/hugging_face.h"

#include "folders.h"
#include "shards/json_metadata.h"
#include "shards/safetensors.h"

namespace caravan {
namespace {

using Kind = GroupId::Kind;

std::vector<SafetensorsEntry> read(const std::string& text) {
  return read_safetensors(to_bytes(text), "x.safetensors");
}

void expect_refused(ErrorCode code, std::vector<std::string> words, const std::string& header,
                    const std::string& data = std::string(64, '\0')) {
  words.push_back("x.safetensors");
  expect_error(code, words, [&] { read(safetensors_text(header, data)); });
}

TEST(Safetensors, ReadsEntriesWithTheirPlaces) {
  const auto entries = read(safetensors_text(
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[8,20]},)"
      R"("a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},"s":{"dtype":"F32","shape":[],"data_offsets":[20,24]}})",
      std::string(24, '\0')));
  ASSERT_EQ(entries.size(), 3u);
  EXPECT_EQ(entries[0].name, "a");
  EXPECT_FALSE(entries[0].type);
  EXPECT_EQ(entries[1].type, TensorType::kBF16);
  EXPECT_EQ(entries[1].shape, (std::vector<uint64_t>{2, 3}));
  EXPECT_EQ(entries[1].offset, entries[0].offset + 8);
  EXPECT_EQ(entries[1].bytes, 12u);
  EXPECT_EQ(entries[2].bytes, 4u);
}

TEST(Safetensors, RefusesWrongHeaders) {
  expect_error(ErrorCode::kMalformed, {"x.safetensors"}, [] { read("short"); });
  expect_error(ErrorCode::kMalformed, {"x.safetensors"}, [] { read(std::string(8, '\xff') + "{}"); });
  expect_refused(ErrorCode::kMalformed, {}, "[]");
  expect_refused(ErrorCode::kMalformed, {}, "{\"a\":");
  expect_refused(ErrorCode::kMalformed, {"a", "dtype"}, R"({"a":{"shape":[1],"data_offsets":[0,4]}})");
  expect_refused(ErrorCode::kMalformed, {"a"}, R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})");
  expect_refused(ErrorCode::kMalformed, {"a"}, R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})");
  expect_refused(ErrorCode::kMalformed, {"a"}, R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})");
  expect_refused(ErrorCode::kMalformed, {"a", "4 bytes"},
                 R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})");
  expect_refused(ErrorCode::kMalformed, {"a", "outside"},
                 R"({"a":{"dtype":"F32","shape":[17],"data_offsets":[0,68]}})");
  expect_refused(ErrorCode::kMalformed, {"a", "outside"},
                 R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[8,4]}})");
  expect_refused(ErrorCode::kMalformed, {"a", "64 bits"},
                 R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})");
  expect_refused(ErrorCode::kMalformed, {"a", "b", "overlap"},
                 R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                 R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})");
  expect_refused(ErrorCode::kMalformed, {"after the last tensor", "60 bytes"},
                 R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})");
  expect_refused(ErrorCode::kMalformed, {"tensor b", "4 bytes before it"},
                 R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                 R"("b":{"dtype":"F32","shape":[14],"data_offsets":[8,64]}})");
  expect_refused(ErrorCode::kMalformed, {"a is there twice"},
                 R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                 R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})");
  expect_refused(ErrorCode::kLimit, {"deeper"}, std::string(10'000, '['));
}

TEST(Safetensors, RefusesAnIndexThatLeavesTheFolder) {
  const auto index = [](const std::string& file) {
    return read_safetensors_index("{\"weight_map\":{\"t\":\"" + file + "\"}}", "x.json");
  };
  EXPECT_EQ(index("model-00001-of-00002.safetensors").at("t"), "model-00001-of-00002.safetensors");
  for (const std::string file : {"../secret", "/etc/passwd", "a/b", "..", ".", "", "a\\\\b", "a\\u0000b"})
    expect_error(ErrorCode::kMalformed, {"x.json", "t"}, [&] { index(file); });
  expect_error(ErrorCode::kMalformed, {"weight_map"}, [] { read_safetensors_index("{}", "x.json"); });
}

TEST(JsonMetadata, FlattensAConfig) {
  const Metadata facts = flatten_json(
      R"({"a": 1, "b": -2, "c": 0.5, "d": true, "e": "text", "f": null, "g": {"h": {"i": 3}}, "j": [1, 2],
          "k": [1, -2], "l": [1, 2.5], "m": ["x"], "n": [], "o": [[1], {"p": 2}], "q": [true, false],
          "r": [1, "a"]})",
      "config.json");
  EXPECT_EQ(facts.integer("a"), 1u);
  EXPECT_EQ(facts.number("b"), -2);
  EXPECT_EQ(facts.number("c"), 0.5);
  EXPECT_EQ(facts.boolean("d"), true);
  EXPECT_EQ(facts.text("e"), "text");
  EXPECT_FALSE(facts.has("f"));
  EXPECT_EQ(facts.integer("g.h.i"), 3u);
  EXPECT_EQ(facts.integers("j"), (std::vector<uint64_t>{1, 2}));
  EXPECT_EQ(facts.numbers("k"), (std::vector<double>{1, -2}));
  EXPECT_EQ(facts.numbers("l"), (std::vector<double>{1, 2.5}));
  EXPECT_EQ(*facts.texts("m"), TextList{"x"});
  EXPECT_EQ(facts.integers("n"), std::vector<uint64_t>{});
  EXPECT_EQ(facts.integers("o.0"), std::vector<uint64_t>{1});
  EXPECT_EQ(facts.integer("o.1.p"), 2u);
  EXPECT_EQ(facts.booleans("q"), (std::vector<bool>{true, false}));
  EXPECT_EQ(facts.integer("r.0"), 1u);
  EXPECT_EQ(facts.text("r.1"), "a");
  EXPECT_THROW(flatten_json(R"({"a.b": 1, "a": {"b": 2}})", "c"), Error);
  EXPECT_THROW(flatten_json("[1]", "c"), Error);
  EXPECT_THROW(flatten_json("{", "c"), Error);
  std::string deep;
  for (int i = 0; i < 1000; ++i) deep += "{\"a\":";
  expect_error(ErrorCode::kLimit, {"c:"}, [&] { flatten_json(deep, "c"); });
}

TEST(HuggingFace, ReadsASingleFile) {
  const TemporaryFolder folder;
  folder.write("config.json", llama_config());
  folder.write("tokenizer.json", "{}");
  folder.write("chat_template.jinja", "{{ messages }}");
  auto tensors = llama_tensors(2);
  tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", {2}});
  folder.write("model.safetensors", safetensors_of(tensors));
  const Manifest manifest = read_manifest(folder.path() + "/");
  EXPECT_EQ(manifest.architecture, "llama");
  EXPECT_EQ(manifest.layer_count, 2u);
  EXPECT_EQ(manifest.tokenizer_json, "{}");
  EXPECT_EQ(manifest.chat_template, "{{ messages }}");
  EXPECT_EQ(manifest.ignored, std::vector<std::string>{"model.layers.0.self_attn.rotary_emb.inv_freq"});
  const Tensor* embedding = manifest.find({Kind::kEmbed})->find(Role::kEmbedding);
  const Tensor* output = manifest.find({Kind::kOutput})->find(Role::kOutput);
  ASSERT_TRUE(embedding && output);
  EXPECT_EQ(embedding->extent.offset, output->extent.offset);
  EXPECT_EQ(embedding->rows, 16u);
  EXPECT_EQ(embedding->columns, 8u);
  uint64_t bytes = 0;
  for (const PlainTensor& tensor : llama_tensors(2)) {
    uint64_t count = 4;
    for (const uint64_t size : tensor.shape) count *= size;
    bytes += count;
  }
  EXPECT_EQ(manifest.bytes().count, bytes) << "the tied matrix counts once";
  const Tensor* down = manifest.find({Kind::kFeedForward, 1})->find(Role::kDown);
  EXPECT_EQ(down->rows, 8u);
  EXPECT_EQ(down->columns, 12u);
}

TEST(HuggingFace, ReadsShardsByTheirIndex) {
  const TemporaryFolder folder;
  folder.write("config.json", llama_config());
  const auto all = llama_tensors(2);
  const std::vector<PlainTensor> first(all.begin(), all.begin() + 7), second(all.begin() + 7, all.end());
  folder.write("a.safetensors", safetensors_of(first));
  folder.write("b.safetensors", safetensors_of(second));
  const auto index = [&](const std::string& moved) {
    std::string map;
    for (const PlainTensor& tensor : all) {
      const bool in_first = (&tensor - all.data() < 7) != (tensor.name == moved);
      map += (map.empty() ? "" : ",") + ("\"" + tensor.name + "\":\"") + (in_first ? "a" : "b") +
             ".safetensors\"";
    }
    folder.write("model.safetensors.index.json", "{\"weight_map\":{" + map + "}}");
  };
  index("");
  const Manifest manifest = read_manifest(folder.path());
  EXPECT_EQ(manifest.source->file_count(), 2u);
  EXPECT_EQ(manifest.layer_count, 2u);
  for (const WeightGroup& group : manifest.groups)
    for (const Tensor& tensor : group.tensors) {
      float value = 0;
      manifest.source->read(tensor.extent.file, tensor.extent.offset,
                            std::as_writable_bytes(std::span(&value, 1)));
      const auto& tensors = tensor.extent.file == 0 ? first : second;
      EXPECT_EQ(tensors.at(static_cast<size_t>(value)).name, tensor.name);
    }
  index("model.norm.weight");
  expect_error(ErrorCode::kMalformed, {"model.norm.weight", "b.safetensors"},
               [&] { read_manifest(folder.path()); });
}

TEST(HuggingFace, SaysWhatIsWrongWithAFolder) {
  const TemporaryFolder folder;
  const auto expect = [&](ErrorCode code, std::vector<std::string> words) {
    words.push_back(folder.path());
    expect_error(code, words, [&] { read_manifest(folder.path()); });
  };
  expect(ErrorCode::kNotFound, {"config.json"});
  folder.write("config.json", "{}");
  expect(ErrorCode::kMalformed, {"model_type"});
  folder.write("config.json", llama_config());
  expect(ErrorCode::kNotFound, {"model.safetensors"});
  auto tensors = llama_tensors(3);
  tensors.erase(tensors.begin() + 11, tensors.begin() + 20);  // layer 1
  folder.write("model.safetensors", safetensors_of(tensors));
  expect(ErrorCode::kMalformed, {"layer 1", "missing"});
  tensors = llama_tensors(1);
  tensors.push_back({"layers.0.mlp.up_proj.weight", {12, 8}});
  folder.write("model.safetensors", safetensors_of(tensors));
  expect(ErrorCode::kMalformed, {"up_proj", "already"});
  tensors = llama_tensors(1);
  tensors[1].shape = {8, 8};
  folder.write("model.safetensors", safetensors_of(tensors));
  expect(ErrorCode::kMalformed, {"model.norm.weight", "dimensions"});
  folder.write(
      "model.safetensors",
      safetensors_text(R"({"model.norm.weight":{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}})",
                       std::string(8, '\0')));
  expect(ErrorCode::kUnsupported, {"model.norm.weight", "F8_E4M3"});
}

TEST(HuggingFace, TakesTheTemplateFromWhereItStands) {
  const TemporaryFolder folder;
  folder.write("config.json", llama_config());
  folder.write("model.safetensors", safetensors_of(llama_tensors(1)));
  folder.write(
      "tokenizer_config.json",
      R"({"chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]})");
  EXPECT_EQ(read_manifest(folder.path()).chat_template, "D");
  folder.write("tokenizer_config.json", R"({"chat_template": "C"})");
  EXPECT_EQ(read_manifest(folder.path()).chat_template, "C");
  folder.write("chat_template.json", R"({"chat_template": "J"})");
  EXPECT_EQ(read_manifest(folder.path()).chat_template, "J");
  folder.write("chat_template.jinja", "I");
  EXPECT_EQ(read_manifest(folder.path()).chat_template, "I");
}

TEST(HuggingFace, WhetherTheMatricesAreTiedIsTheFamilysToSayWhereTheFolderDoesNot) {
  const TemporaryFolder folder;
  auto tensors = llama_tensors(1);
  tensors.push_back({"lm_head.weight", {16, 8}});
  folder.write("model.safetensors", safetensors_of(tensors));
  for (const auto& [family, tied] : {std::pair{"llama", false}, std::pair{"smollm3", true}}) {
    folder.write("config.json", std::string("{\"model_type\": \"") + family + "\"}");
    const Manifest manifest = read_manifest(folder.path());
    EXPECT_EQ(manifest.find({Kind::kOutput})->find(Role::kOutput)->name,
              tied ? "model.embed_tokens.weight" : "lm_head.weight")
        << family;
  }
}

TEST(HuggingFace, AFurtherTrainedModelHasAnotherFingerprint) {
  const TemporaryFolder folder;
  folder.write("config.json", llama_config());
  auto text = safetensors_of(llama_tensors(2));
  folder.write("model.safetensors", text);
  const Hash256 before = read_manifest(folder.path()).fingerprint();
  EXPECT_EQ(read_manifest(folder.path()).fingerprint(), before);
  const size_t data = text.find("}}") + 2;
  text[data + 3] ^= 1;
  folder.write("model.safetensors", text);
  EXPECT_NE(read_manifest(folder.path()).fingerprint(), before);
}

}  // namespace
}  // namespace caravan
