#include "shards/gguf_facts.h"

#include <cmath>

#include "folders.h"
#include "shards/json_metadata.h"

namespace caravan {
namespace {

// A Llama of two layers and 16 tokens whose config has `more` facts (JSON members, each with a comma before
// it) and whose model_type is `family`.
Manifest manifest_of(const std::string& more, const std::string& family = "llama") {
  const TemporaryFolder folder;
  std::string config = llama_config();
  config.replace(config.find("llama"), 5, family);
  config.insert(config.rfind('}'), more);
  folder.write("config.json", config);
  folder.write("model.safetensors", safetensors_of(llama_tensors(2)));
  return read_manifest(folder.path());
}

GgufFacts facts_of(const std::string& more, const std::string& family = "llama") {
  return gguf_facts(manifest_of(more, family), [](const std::string&) {});
}

TEST(GgufFacts, SpellsTheShape) {
  const GgufFacts facts = facts_of("");
  const Metadata& metadata = facts.metadata;
  EXPECT_EQ(metadata.text("general.architecture"), "llama");
  EXPECT_EQ(metadata.integer("llama.block_count"), 2u);
  EXPECT_EQ(metadata.integer("llama.embedding_length"), 8u);
  EXPECT_EQ(metadata.integer("llama.feed_forward_length"), 12u);
  EXPECT_EQ(metadata.integer("llama.attention.head_count"), 2u);
  EXPECT_EQ(metadata.integer("llama.attention.head_count_kv"), 2u);
  EXPECT_EQ(metadata.integer("llama.rope.dimension_count"), 4u);
  EXPECT_EQ(metadata.integer("llama.vocab_size"), 16u);
  EXPECT_EQ(metadata.number("llama.attention.layer_norm_rms_epsilon"), static_cast<double>(1e-5f));
  EXPECT_FALSE(metadata.has("llama.rope.scaling.type"));
  EXPECT_TRUE(facts.interleaved);
  EXPECT_TRUE(facts.rope_divisors.empty());
}

TEST(GgufFacts, SpellsFamilies) {
  EXPECT_EQ(facts_of("", "mistral").metadata.text("general.architecture"), "llama");
  EXPECT_EQ(
      facts_of(R"(,"sliding_window": 32)", "mistral").metadata.integer("llama.attention.sliding_window"),
      32u);
  EXPECT_FALSE(
      facts_of(R"(,"sliding_window": null)", "mistral").metadata.has("llama.attention.sliding_window"));
  const GgufFacts qwen = facts_of(R"(,"sliding_window": 32, "use_sliding_window": false)", "qwen2");
  EXPECT_EQ(qwen.metadata.integer("qwen2.block_count"), 2u);
  EXPECT_FALSE(qwen.metadata.has("qwen2.attention.sliding_window"));
  EXPECT_FALSE(qwen.interleaved);
  const GgufFacts granite = facts_of(R"(,"embedding_multiplier": 12.0, "logits_scaling": 8.0,
      "residual_multiplier": 0.22, "attention_multiplier": 0.015625)",
                                     "granite");
  EXPECT_EQ(granite.metadata.number("granite.embedding_scale"), 12);
  EXPECT_EQ(granite.metadata.number("granite.logit_scale"), 8);
  EXPECT_EQ(granite.metadata.number("granite.residual_scale"), static_cast<double>(0.22f));
  EXPECT_EQ(granite.metadata.number("granite.attention.scale"), 0.015625);
}

TEST(GgufFacts, RefusesWhatGgufCannotSay) {
  const auto expect = [](const std::string& word, const std::string& more,
                         const std::string& family = "llama") {
    expect_error(ErrorCode::kUnsupported, {word}, [&] { facts_of(more, family); });
  };
  expect("gpt_neo", "", "gpt_neo");
  expect("window", R"(,"sliding_window": 4, "use_sliding_window": true, "max_window_layers": 1)", "qwen2");
  expect(
      "window",
      R"(,"sliding_window": 4, "use_sliding_window": true, "layer_types": ["full_attention", "sliding_attention"])",
      "qwen3");
  expect("partial_rotary_factor", R"(,"partial_rotary_factor": 0.5)");
  expect("dynamic", R"(,"rope_parameters": {"rope_type": "dynamic", "factor": 2.0})");
  expect("no_rope_layers", R"(,"no_rope_layers": [0, 1])", "smollm3");
}

TEST(GgufFacts, SpellsRopeScalingInBothSpellings) {
  const std::string linear = R"("factor": 4.0)";
  for (const std::string& more :
       {R"(,"rope_parameters": {"rope_type": "linear", "rope_theta": 5e5, )" + linear + "}",
        R"(,"rope_parameters": {"rope_theta": 5e5, "rope_type": "linear", )" + linear + "}"}) {
    const Metadata metadata = facts_of(more).metadata;
    EXPECT_EQ(metadata.text("llama.rope.scaling.type"), "linear");
    EXPECT_EQ(metadata.number("llama.rope.scaling.factor"), 4);
    EXPECT_EQ(metadata.number("llama.rope.freq_base"), 5e5);
  }
  const Metadata yarn =
      facts_of(
          R"(,"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16,
                 "beta_fast": 30.0, "attention_factor": 2.0})")
          .metadata;
  EXPECT_EQ(yarn.text("llama.rope.scaling.type"), "yarn");
  EXPECT_EQ(yarn.integer("llama.rope.scaling.original_context_length"), 16u);
  EXPECT_EQ(yarn.number("llama.rope.scaling.yarn_beta_fast"), 30);
  EXPECT_NEAR(*yarn.number("llama.rope.scaling.attn_factor"), 2 / (1 + 0.1 * std::log(4.0)), 1e-6);
}

// Llama 3's rule: wavelengths below original / high keep their frequency, above original / low it is divided
// by the factor.
TEST(GgufFacts, WritesLlama3ScalingAsDivisors) {
  const GgufFacts facts =
      facts_of(R"(,"head_dim": 16, "rope_parameters": {"rope_type": "llama3", "factor": 8.0,
      "rope_theta": 10000.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
      "original_max_position_embeddings": 32})");
  EXPECT_FALSE(facts.metadata.has("llama.rope.scaling.type"));
  ASSERT_EQ(facts.rope_divisors.size(), 8u);
  for (size_t i = 0; i < 8; ++i) {
    const double wavelength = 2 * 3.141592653589793 * std::pow(10000.0, static_cast<double>(i) / 8);
    if (wavelength < 32.0 / 4)
      EXPECT_FLOAT_EQ(facts.rope_divisors[i], 1);
    else if (wavelength > 32.0)
      EXPECT_FLOAT_EQ(facts.rope_divisors[i], 8);
    else
      EXPECT_TRUE(facts.rope_divisors[i] > 1 && facts.rope_divisors[i] < 8);
  }
}

Metadata tokenizer_facts(const std::string& tokenizer, const std::string& config, uint32_t vocabulary = 8) {
  Manifest manifest;
  manifest.path = "folder";
  manifest.tokenizer_json = tokenizer;
  manifest.tokenizer_config_json = config;
  Metadata metadata("out");
  add_tokenizer_facts(
      manifest, vocabulary, [](const std::string&) {}, metadata);
  return metadata;
}

TEST(TokenizerFacts, SpellsByteLevelVocabularies) {
  const auto text = [](const std::string& pre) {
    return R"({"added_tokens": [{"id": 5, "content": "<end>", "special": true}, {"id": 4, "content": "<t>"}],
      "pre_tokenizer": )" +
           pre +
           R"(, "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3}, "merges": [["a", "b"]]}})";
  };
  const std::string config =
      R"({"eos_token": {"content": "<end>"}, "bos_token": null, "add_bos_token": false})";
  const Metadata metadata = tokenizer_facts(text(R"({"type": "ByteLevel", "use_regex": true})"), config);
  EXPECT_EQ(metadata.text("tokenizer.ggml.model"), "gpt2");
  EXPECT_EQ(metadata.text("tokenizer.ggml.pre"), "gpt-2");
  EXPECT_EQ(*metadata.texts("tokenizer.ggml.tokens"),
            (TextList{"a", "b", "ab", "c", "<t>", "<end>", "[PAD6]", "[PAD7]"}));
  EXPECT_EQ(metadata.integers("tokenizer.ggml.token_type"), (std::vector<uint64_t>{1, 1, 1, 1, 4, 3, 5, 5}));
  EXPECT_EQ(*metadata.texts("tokenizer.ggml.merges"), TextList{"a b"});
  EXPECT_EQ(metadata.integer("tokenizer.ggml.eos_token_id"), 5u);
  EXPECT_FALSE(metadata.has("tokenizer.ggml.bos_token_id"));
  EXPECT_EQ(metadata.boolean("tokenizer.ggml.add_bos_token"), false);
  EXPECT_FALSE(metadata.has("tokenizer.ggml.scores"));
  const auto split = [](const std::string& pattern) {
    return R"({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": ")" + pattern +
           R"("}, "behavior": "Isolated"}, {"type": "ByteLevel", "use_regex": false}]})";
  };
  const std::string qwen =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+)";
  EXPECT_EQ(tokenizer_facts(text(split(qwen)), config).text("tokenizer.ggml.pre"), "qwen2");
  expect_error(ErrorCode::kUnsupported, {"pre_tokenizer", "zzz"},
               [&] { tokenizer_facts(text(split("zzz")), config); });
  expect_error(ErrorCode::kMalformed, {"folder/tokenizer.json", "<end>"},
               [&] { tokenizer_facts(text(R"({"type": "ByteLevel"})"), config, 5); });
}

TEST(TokenizerFacts, SpellsSentencePieceVocabularies) {
  const Metadata metadata = tokenizer_facts(
      R"({"added_tokens": [{"id": 0, "content": "<unk>", "special": true}, {"id": 1, "content": "<s>", "special": true}],
          "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}]},
          "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}]},
          "model": {"type": "BPE", "unk_token": "<unk>", "byte_fallback": true,
                    "vocab": {"<unk>": 0, "<s>": 1, "<0x0A>": 2, "a": 3, "b": 4, "ab": 5, "abb": 6},
                    "merges": ["a b", "ab b"]}})",
      R"({"bos_token": "<s>", "unk_token": "<unk>"})");
  EXPECT_EQ(metadata.text("tokenizer.ggml.model"), "llama");
  EXPECT_EQ(metadata.integers("tokenizer.ggml.token_type"), (std::vector<uint64_t>{2, 3, 6, 1, 1, 1, 1, 5}));
  const auto scores = *metadata.numbers("tokenizer.ggml.scores");
  EXPECT_GT(scores[5], scores[6]) << "the earlier merge has the higher score";
  EXPECT_EQ(metadata.integer("tokenizer.ggml.bos_token_id"), 1u);
  EXPECT_EQ(metadata.integer("tokenizer.ggml.unknown_token_id"), 0u);
  EXPECT_EQ(metadata.boolean("tokenizer.ggml.add_bos_token"), true);
  EXPECT_EQ(metadata.boolean("tokenizer.ggml.add_space_prefix"), true);
}

TEST(TokenizerFacts, SurvivesHostileJson) {
  for (const char* text :
       {"[]", "{}", "{\"model\": 1}", "{\"model\": {\"vocab\": [], \"merges\": 3}}",
        "{\"model\": {\"vocab\": {\"a\": -1}, \"merges\": []}}",
        "{\"model\": {\"vocab\": {\"a\": 1e9}, \"merges\": []}}",
        "{\"model\": {\"vocab\": {}, \"merges\": [[\"a\"]]}}",
        "{\"model\": {\"vocab\": {}, \"merges\": [\"\"]}}", "{\"added_tokens\": 5, \"model\": {}}",
        "{\"model\": {\"type\": \"Unigram\", \"vocab\": []}}"}) {
    EXPECT_THROW(tokenizer_facts(text, ""), Error) << text;
  }
}

}  // namespace
}  // namespace caravan
