#include "bench/generate.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

#include "base/error.h"
#include "base/random.h"
#include "compute/blocks.h"
#include "shards/gguf_writer.h"
#include "shards/metadata.h"

namespace caravan {

namespace {

constexpr ModelShape kShapes[] = {
    {"tiny", "llama", 2, 256, 512, 4, 2, 64, 512, 0, 0, 512, 10000},
    {"deep", "llama", 48, 256, 768, 4, 1, 64, 512, 0, 0, 2048, 10000},
    {"wide", "llama", 2, 2048, 5632, 32, 32, 64, 512, 0, 0, 2048, 10000},
    {"0.2b", "llama", 16, 1024, 2816, 16, 4, 64, 16000, 0, 0, 2048, 10000},
    {"1.1b", "llama", 22, 2048, 5632, 32, 4, 64, 32000, 0, 0, 2048, 10000},
    {"8b", "llama", 32, 4096, 14336, 32, 8, 128, 128256, 0, 0, 8192, 500000},
    {"30b-a3b", "qwen3moe", 48, 2048, 768, 32, 4, 128, 151936, 128, 8, 32768, 1000000},
};

std::vector<GgufTensorPlan> tensors_of(const ModelShape& shape, TensorType type) {
  const uint64_t width = shape.width, queries = uint64_t{shape.heads} * shape.head_width,
                 keys = uint64_t{shape.kv_heads} * shape.head_width, ff = shape.feed_forward;
  std::vector<GgufTensorPlan> tensors = {{"token_embd.weight", type, {width, shape.vocabulary}}};
  for (uint32_t i = 0; i < shape.layers; ++i) {
    const auto add = [&](std::string_view name, TensorType of, std::vector<uint64_t> dimensions) {
      tensors.push_back({fmt::format("blk.{}.{}.weight", i, name), of, std::move(dimensions)});
    };
    add("attn_norm", TensorType::kF32, {width});
    add("attn_q", type, {width, queries});
    add("attn_k", type, {width, keys});
    add("attn_v", type, {width, keys});
    add("attn_output", type, {queries, width});
    add("ffn_norm", TensorType::kF32, {width});
    if (shape.experts == 0) {
      add("ffn_gate", type, {width, ff});
      add("ffn_up", type, {width, ff});
      add("ffn_down", type, {ff, width});
      continue;
    }
    add("attn_q_norm", TensorType::kF32, {shape.head_width});
    add("attn_k_norm", TensorType::kF32, {shape.head_width});
    add("ffn_gate_inp", TensorType::kF32, {width, shape.experts});
    add("ffn_gate_exps", type, {width, ff, shape.experts});
    add("ffn_up_exps", type, {width, ff, shape.experts});
    add("ffn_down_exps", type, {ff, width, shape.experts});
  }
  tensors.push_back({"output_norm.weight", TensorType::kF32, {width}});
  tensors.push_back({"output.weight", type, {width, shape.vocabulary}});
  for (const GgufTensorPlan& tensor : tensors)
    if (tensor.dimensions[0] % traits(tensor.type).block_elements != 0)
      fail(ErrorCode::kUnsupported, "{}: rows of {} are no multiple of the blocks of {}", tensor.name,
           tensor.dimensions[0], traits(tensor.type).name);
  return tensors;
}

Metadata metadata_of(const ModelShape& shape) {
  Metadata metadata;
  const auto set = [&](std::string_view key, Metadata::Value value) {
    metadata.set(fmt::format("{}.{}", shape.architecture, key), std::move(value));
  };
  metadata.set("general.architecture", std::string(shape.architecture));
  metadata.set("general.name", fmt::format("noise {}", shape.name));
  set("block_count", uint64_t{shape.layers});
  set("context_length", uint64_t{shape.context});
  set("embedding_length", uint64_t{shape.width});
  set("feed_forward_length", uint64_t{shape.feed_forward});
  set("attention.head_count", uint64_t{shape.heads});
  set("attention.head_count_kv", uint64_t{shape.kv_heads});
  set("attention.key_length", uint64_t{shape.head_width});
  set("attention.value_length", uint64_t{shape.head_width});
  set("attention.layer_norm_rms_epsilon", double{1e-5f});
  set("rope.freq_base", shape.rope_base);
  set("rope.dimension_count", uint64_t{shape.head_width});
  set("vocab_size", uint64_t{shape.vocabulary});
  if (shape.experts == 0) return metadata;
  set("expert_count", uint64_t{shape.experts});
  set("expert_used_count", uint64_t{shape.experts_per_token});
  set("expert_feed_forward_length", uint64_t{shape.feed_forward});
  return metadata;
}

// SentencePiece-type: unknown, start and end, the 256 bytes, then numbered words.
void add_vocabulary(uint32_t count, Metadata& metadata) {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<int64_t> kinds = {2, 3, 3};
  std::vector<double> scores(count, 0.0);
  for (int byte = 0; byte < 256; ++byte) {
    tokens.push_back(fmt::format("<0x{:02X}>", byte));
    kinds.push_back(6);
  }
  for (uint32_t i = static_cast<uint32_t>(tokens.size()); i < count; ++i) {
    tokens.push_back(fmt::format("\xE2\x96\x81w{}", i));
    kinds.push_back(1);
    scores[i] = -static_cast<double>(i);
  }
  metadata.set("tokenizer.ggml.model", std::string("llama"));
  metadata.set("tokenizer.ggml.tokens", TextList(tokens));
  metadata.set("tokenizer.ggml.token_type", std::move(kinds));
  metadata.set("tokenizer.ggml.scores", std::move(scores));
  metadata.set("tokenizer.ggml.bos_token_id", uint64_t{1});
  metadata.set("tokenizer.ggml.eos_token_id", uint64_t{2});
  metadata.set("tokenizer.ggml.unknown_token_id", uint64_t{0});
  metadata.set("tokenizer.ggml.add_bos_token", true);
}

// xorshift64*: noise needs to be fast and repeatable, no more.
class Noise {
 public:
  explicit Noise(uint64_t seed) : state_(mix64(seed) | 1) {}
  uint64_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1dull;
  }
  // In [-1, 1).
  float unit() { return static_cast<float>(static_cast<int32_t>(next() >> 32)) * 0x1p-31f; }
  void fill(std::span<std::byte> bytes) {
    for (size_t i = 0; i < bytes.size(); i += 8) {
      const uint64_t value = next();
      std::memcpy(bytes.data() + i, &value, std::min<size_t>(8, bytes.size() - i));
    }
  }

 private:
  uint64_t state_;
};

// Integers uniform over `levels` values have this deviation.
double deviation_of(double levels) {
  return std::sqrt((levels * levels - 1) / 12);
}

uint16_t half(double value) {
  return float_to_half(static_cast<float>(value));
}

// Gives blocks of random integers the scales that make values of mean 0 and the given deviation.
void set_scales(BlockQ4_0& block, double deviation) {
  block.d = half(deviation / deviation_of(16));
}
void set_scales(BlockQ5_0& block, double deviation) {
  block.d = half(deviation / deviation_of(32));
}
void set_scales(BlockQ8_0& block, double deviation) {
  block.d = half(deviation / deviation_of(255));
  for (int8_t& q : block.quants) q = std::max<int8_t>(q, -127);
}
void set_scales(BlockQ4_1& block, double deviation) {
  block.d = half(deviation / deviation_of(16));
  block.m = half(-7.5 * deviation / deviation_of(16));
}
void set_scales(BlockQ5_1& block, double deviation) {
  block.d = half(deviation / deviation_of(32));
  block.m = half(-15.5 * deviation / deviation_of(32));
}
template <class Block>
void set_super_scales(Block& block, double levels, double deviation) {
  constexpr uint8_t kScales[8] = {32, 32, 32, 32, 32, 32, 32, 32};
  pack_scales(kScales, kScales, block.scales);
  block.d = half(deviation / deviation_of(levels) / 32);
  block.m = half((levels - 1) / 2 * deviation / deviation_of(levels) / 32);
}
void set_scales(BlockQ4_K& block, double deviation) {
  set_super_scales(block, 16, deviation);
}
void set_scales(BlockQ5_K& block, double deviation) {
  set_super_scales(block, 32, deviation);
}
void set_scales(BlockQ6_K& block, double deviation) {
  std::fill(std::begin(block.scales), std::end(block.scales), int8_t{32});
  block.d = half(deviation / deviation_of(64) / 32);
}

template <class Block>
void fill_blocks(Noise& noise, double deviation, std::span<std::byte> out) {
  noise.fill(out);
  for (size_t i = 0; i < out.size(); i += sizeof(Block)) {
    Block block;
    std::memcpy(&block, out.data() + i, sizeof block);
    set_scales(block, deviation);
    std::memcpy(out.data() + i, &block, sizeof block);
  }
}

void fill_plain(TensorType type, Noise& noise, double deviation, std::span<std::byte> out) {
  const auto bound = static_cast<float>(deviation * std::sqrt(3.0));
  std::vector<float> values(out.size() / traits(type).block_bytes);
  for (float& value : values) value = bound * noise.unit();
  quantize(type, values, out);
}

void fill_matrix(TensorType type, Noise& noise, double deviation, std::span<std::byte> out) {
  switch (type) {
    case TensorType::kF32:
    case TensorType::kF16:
    case TensorType::kBF16:
      return fill_plain(type, noise, deviation, out);
    case TensorType::kQ4_0:
      return fill_blocks<BlockQ4_0>(noise, deviation, out);
    case TensorType::kQ4_1:
      return fill_blocks<BlockQ4_1>(noise, deviation, out);
    case TensorType::kQ5_0:
      return fill_blocks<BlockQ5_0>(noise, deviation, out);
    case TensorType::kQ5_1:
      return fill_blocks<BlockQ5_1>(noise, deviation, out);
    case TensorType::kQ8_0:
      return fill_blocks<BlockQ8_0>(noise, deviation, out);
    case TensorType::kQ4_K:
      return fill_blocks<BlockQ4_K>(noise, deviation, out);
    case TensorType::kQ5_K:
      return fill_blocks<BlockQ5_K>(noise, deviation, out);
    case TensorType::kQ6_K:
      return fill_blocks<BlockQ6_K>(noise, deviation, out);
  }
}

void write_tensor(const GgufTensorPlan& tensor, Noise& noise, GgufWriter& writer,
                  const std::function<void(uint64_t)>& advance) {
  constexpr uint64_t kRun = 4u << 20;
  if (tensor.dimensions.size() == 1) {
    const std::vector<float> ones(tensor.dimensions[0], 1.0f);
    writer.append(std::as_bytes(std::span(ones)));
    return advance(tensor.bytes());
  }
  const double deviation = 1 / std::sqrt(static_cast<double>(tensor.dimensions[0]));
  const uint64_t run = kRun / traits(tensor.type).block_bytes * traits(tensor.type).block_bytes;
  std::vector<std::byte> bytes;
  for (uint64_t left = tensor.bytes(); left > 0; left -= bytes.size()) {
    bytes.resize(std::min(run, left));
    fill_matrix(tensor.type, noise, deviation, bytes);
    writer.append(bytes);
    advance(bytes.size());
  }
}

}  // namespace

std::optional<ModelShape> model_shape(std::string_view name) {
  for (const ModelShape& shape : kShapes)
    if (shape.name == name) return shape;
  return std::nullopt;
}

std::vector<std::string_view> model_shape_names() {
  std::vector<std::string_view> names;
  for (const ModelShape& shape : kShapes) names.push_back(shape.name);
  return names;
}

uint64_t generated_bytes(const ModelShape& shape, TensorType type) {
  uint64_t bytes = 0;
  for (const GgufTensorPlan& tensor : tensors_of(shape, type)) bytes += tensor.bytes();
  return bytes;
}

void generate_model(const ModelShape& shape, TensorType type, uint64_t seed, const std::string& path,
                    const std::function<void(uint64_t bytes)>& advance) {
  const std::vector<GgufTensorPlan> tensors = tensors_of(shape, type);
  Metadata metadata = metadata_of(shape);
  add_vocabulary(shape.vocabulary, metadata);
  GgufWriter writer(path, metadata, tensors);
  Noise noise(seed);
  for (const GgufTensorPlan& tensor : tensors) write_tensor(tensor, noise, writer, advance);
  writer.finish();
}

}  // namespace caravan
