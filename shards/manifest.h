#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/source.h"
#include "compute/format.h"
#include "shards/metadata.h"

namespace caravan {

// What a tensor is for, whatever its file calls it (shards/names.cpp). Norm roles are named by where the
// file's tensor sits; which of them a layer uses is the family's say (model/spec.h).
enum class Role : uint8_t {
  kEmbedding,          // [vocabulary, width]
  kOutputNorm,         // [width]
  kOutput,             // [vocabulary, width]; the embedding's extents when tied
  kRopeFactors,        // [rope width / 2], GGUF's rope_freqs
  kAttentionNorm,      // before attention
  kAttentionPostNorm,  // after attention, before it is added
  kQuery,
  kKey,
  kValue,
  kQueryBias,
  kKeyBias,
  kValueBias,
  kQueryNorm,
  kKeyNorm,
  kAttentionOutput,
  kAttentionOutputBias,
  kFeedForwardNorm,      // before the feed-forward (Llama's post_attention_layernorm)
  kFeedForwardPostNorm,  // after the feed-forward, before it is added
  kRouter,               // [experts, width]
  kGate,
  kUp,
  kDown,  // of the dense feed-forward or of one expert
  kGateBias,
  kUpBias,
  kDownBias,
};
std::string_view name(Role role);
// Stored records have a role as its number: new ones are added at the end.
inline constexpr uint8_t kRoleCount = static_cast<uint8_t>(Role::kDownBias) + 1;

// A weight group's name. Printed as embed, layer.17.attn, layer.17.ffn, layer.17.expert.42, output.
struct GroupId {
  enum class Kind : uint8_t { kEmbed, kAttention, kFeedForward, kExpert, kOutput };
  Kind kind = Kind::kEmbed;
  uint32_t layer = 0;
  uint32_t expert = 0;
  auto operator<=>(const GroupId&) const = default;
};
std::string to_string(GroupId id);
// In which unit of a model of `layers` layers.
uint32_t unit_of(const GroupId& id, uint32_t layers);

struct Tensor {
  std::string name;  // the file's
  Role role{};
  TensorType type{};
  uint32_t rows = 1;     // outputs; 1 for vectors
  uint32_t columns = 0;  // inputs
  Extent extent;         // checked to lie inside its file and to hold exactly rows * row_bytes(type, columns)
};

struct WeightGroup {
  GroupId id;
  std::vector<Tensor> tensors;
  Bytes bytes() const;
  const Tensor* find(Role role) const;
};

// What a file or folder describes: hyper-parameters, tokenizer facts and weight groups, with where the bytes
// lie.
struct Manifest {
  enum class Origin { kGguf, kHuggingFace };
  Origin origin{};
  std::string path;          // as given
  std::string name;          // the file's or folder's stem
  std::string architecture;  // general.architecture or model_type
  Metadata metadata;         // config.json flattened, or all GGUF metadata
  // Texts of a Hugging Face folder, empty when absent (GGUF keeps the same facts in its metadata).
  // `chat_template` is that of chat_template.jinja, else of chat_template.json or tokenizer_config.json.
  std::string tokenizer_json, tokenizer_config_json, generation_config_json, chat_template;
  std::vector<WeightGroup> groups;   // sorted by id; none in a vocabulary-only file
  std::vector<std::string> ignored;  // tensors that no role fits
  std::shared_ptr<const Source> source;
  uint32_t layer_count = 0;
  std::optional<Hash256> content;  // weights_id_of the groups, where their hashes are known
  // Of an imported model, as it was when its files were hashed: sampling would read whole chunks of the
  // store.
  std::optional<Hash256> recorded_fingerprint;
  // Once the tokenizer's texts were dropped: what is left of them.
  struct TokenizerMade {
    Hash256 fingerprint;  // of the whole manifest
    Bytes memory;         // what was made of the texts takes; nothing where no tokenizer was needed
  };
  std::optional<TokenizerMade> tokenizer_made;

  // Drops what only a tokenizer is made of: many MiB, of no use once it was made or where none is. A manifest
  // without it makes no record for the store.
  void drop_tokenizer(const TokenizerMade& made);

  const WeightGroup* find(GroupId id) const;
  Bytes bytes() const;  // of all groups, tied extents counted once
  // SHA-256 over the hyper-parameters, every group's tensors (role, type, shape, name), and a few bytes at
  // the beginning, in the middle and at the end of each tensor (of some experts of each layer), so that a
  // model and one trained further from it differ.
  Hash256 fingerprint() const;
};

// Reads a .gguf file, or a folder with config.json and safetensors. Nothing is loaded: weights are mapped.
// Throws kNotFound, kMalformed, kUnsupported naming file, tensor and reason.
Manifest read_manifest(const std::string& path);
// The same, but a GGUF file may end anywhere after its header (a download that has begun). The manifest of a
// GGUF file has no source then: its weights cannot be read.
Manifest read_manifest_header(const std::string& path);

}  // namespace caravan
