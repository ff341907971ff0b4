#include "shards/manifest.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <system_error>

#include "base/error.h"
#include "base/hash.h"
#include "shards/gguf.h"
#include "shards/groups.h"
#include "shards/hugging_face.h"

namespace caravan {

namespace {

constexpr std::array<std::string_view, 25> kRoleNames = {"embedding",
                                                         "output_norm",
                                                         "output",
                                                         "rope_factors",
                                                         "attention_norm",
                                                         "attention_post_norm",
                                                         "query",
                                                         "key",
                                                         "value",
                                                         "query_bias",
                                                         "key_bias",
                                                         "value_bias",
                                                         "query_norm",
                                                         "key_norm",
                                                         "attention_output",
                                                         "attention_output_bias",
                                                         "feed_forward_norm",
                                                         "feed_forward_post_norm",
                                                         "router",
                                                         "gate",
                                                         "up",
                                                         "down",
                                                         "gate_bias",
                                                         "up_bias",
                                                         "down_bias"};
static_assert(kRoleNames.size() == kRoleCount);

// Of a tensor's bytes the fingerprint takes so many at its beginning, in its middle and at its end: enough to
// tell a model from one trained further or patched in places, little enough to touch three pages a tensor.
constexpr uint64_t kSampleBytes = 256;
// Of the experts of a layer about so many are looked at, others in the next layer.
constexpr uint32_t kSampledExperts = 4;
// Reads at most, of a page each when nothing is cached: half a second from a slow disk. A model with more
// places gives every second of them, or third, and so on.
constexpr size_t kMostSamples = 4096;

// Where the samples lie: beginnings of tensors, then middles, then ends.
std::vector<Extent> sampled_places(const std::vector<WeightGroup>& groups) {
  std::map<uint32_t, uint32_t> experts;  // of a layer
  for (const WeightGroup& group : groups)
    if (group.id.kind == GroupId::Kind::kExpert) ++experts[group.id.layer];
  std::vector<Extent> places;
  for (const uint64_t half : {0u, 1u, 2u})
    for (const WeightGroup& group : groups) {
      if (group.id.kind == GroupId::Kind::kExpert) {
        const uint32_t every = std::max(1u, experts[group.id.layer] / kSampledExperts);
        if (group.id.expert % every != group.id.layer % every) continue;
      }
      for (const Tensor& tensor : group.tensors) {
        const uint64_t length = std::min(kSampleBytes, tensor.extent.length);
        const uint64_t last = tensor.extent.length - length;
        if (half > 0 && last == 0) continue;
        places.push_back(
            {tensor.extent.file, tensor.extent.offset + last / 2 * half + last % 2 * (half / 2), length});
      }
    }
  const size_t every = (places.size() + kMostSamples - 1) / kMostSamples;
  if (every < 2) return places;
  std::vector<Extent> some;
  for (size_t i = 0; i < places.size(); i += every) some.push_back(places[i]);
  return some;
}

class Fingerprint {
 public:
  void add(std::string_view text) { hash_.update(uint64_t{text.size()}).update(text); }
  void add(uint64_t value) { hash_.update(value); }
  void add(int64_t value) { hash_.update(static_cast<uint64_t>(value)); }
  void add(double value) {
    uint64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    hash_.update(bits);
  }
  void add(bool value) { hash_.update(uint64_t{value}); }
  void add(const TextList& values) {
    hash_.update(uint64_t{values.size()});
    for (const std::string_view value : values) add(value);
  }
  template <class T>
  void add(const std::vector<T>& values) {
    hash_.update(uint64_t{values.size()});
    for (const auto& value : values) add(static_cast<const T&>(value));
  }
  void add_bytes(std::span<const std::byte> bytes) { hash_.update(bytes); }
  Hash256 finish() { return hash_.finish(); }

 private:
  Sha256 hash_;
};

std::string stem_of(const std::string& path, bool folder) {
  std::error_code error;
  std::filesystem::path absolute = std::filesystem::absolute(path, error).lexically_normal();
  if (!absolute.has_filename()) absolute = absolute.parent_path();
  return folder ? absolute.filename().string() : absolute.stem().string();
}

Manifest read_gguf_manifest(const std::string& path, GgufPart part) {
  auto source = std::make_shared<FileSource>(std::vector<std::string>{path});
  GgufFile file = read_gguf(source->mapped({0, 0, source->file_bytes(0)}), path, part);
  source->let_go();
  Manifest manifest;
  manifest.origin = Manifest::Origin::kGguf;
  manifest.path = path;
  const auto architecture = file.metadata.text("general.architecture");
  if (!architecture) fail(ErrorCode::kMalformed, "{}: key general.architecture is missing", path);
  manifest.architecture = *architecture;
  if (file.metadata.integer("split.count").value_or(1) > 1)
    fail(ErrorCode::kUnsupported, "{}: one part of a split model; merge the parts into one file first", path);
  std::vector<FileTensor> tensors;
  tensors.reserve(file.tensors.size());
  for (GgufTensor& tensor : file.tensors)
    tensors.push_back({std::move(tensor.name), tensor.type, std::string(name(tensor.type)),
                       std::move(tensor.dimensions), Extent{0, tensor.offset, tensor.bytes}});
  manifest.metadata = std::move(file.metadata);
  // Without one nobody can take what lies past the end for weights.
  if (part == GgufPart::kWhole) manifest.source = std::move(source);
  assign_groups(manifest, tensors, false);
  return manifest;
}

}  // namespace

std::string_view name(Role role) {
  return kRoleNames[static_cast<size_t>(role)];
}

std::string to_string(GroupId id) {
  switch (id.kind) {
    case GroupId::Kind::kEmbed:
      return "embed";
    case GroupId::Kind::kAttention:
      return fmt::format("layer.{}.attn", id.layer);
    case GroupId::Kind::kFeedForward:
      return fmt::format("layer.{}.ffn", id.layer);
    case GroupId::Kind::kExpert:
      return fmt::format("layer.{}.expert.{}", id.layer, id.expert);
    case GroupId::Kind::kOutput:
      break;
  }
  return "output";
}

uint32_t unit_of(const GroupId& id, uint32_t layers) {
  if (id.kind == GroupId::Kind::kEmbed) return 0;
  return id.kind == GroupId::Kind::kOutput ? layers + 1 : id.layer + 1;
}

Bytes WeightGroup::bytes() const {
  Bytes sum;
  for (const Tensor& tensor : tensors) sum += Bytes{tensor.extent.length};
  return sum;
}

const Tensor* WeightGroup::find(Role role) const {
  for (const Tensor& tensor : tensors)
    if (tensor.role == role) return &tensor;
  return nullptr;
}

const WeightGroup* Manifest::find(GroupId id) const {
  const auto found =
      std::lower_bound(groups.begin(), groups.end(), id,
                       [](const WeightGroup& group, GroupId wanted) { return group.id < wanted; });
  return found != groups.end() && found->id == id ? &*found : nullptr;
}

Bytes Manifest::bytes() const {
  std::set<std::pair<uint32_t, uint64_t>> counted;
  Bytes sum;
  for (const WeightGroup& group : groups)
    for (const Tensor& tensor : group.tensors)
      if (counted.insert({tensor.extent.file, tensor.extent.offset}).second)
        sum += Bytes{tensor.extent.length};
  return sum;
}

void Manifest::drop_tokenizer(const TokenizerMade& made) {
  metadata.drop("tokenizer.");
  for (std::string* text : {&tokenizer_json, &tokenizer_config_json, &generation_config_json, &chat_template})
    std::string().swap(*text);
  tokenizer_made = made;
}

Hash256 Manifest::fingerprint() const {
  if (tokenizer_made) return tokenizer_made->fingerprint;
  if (recorded_fingerprint) return *recorded_fingerprint;
  Fingerprint hash;
  hash.add(std::string_view("caravan manifest 2"));
  hash.add(uint64_t{origin == Origin::kGguf});
  hash.add(architecture);
  hash.add(uint64_t{metadata.values().size()});
  for (const auto& [key, value] : metadata.values()) {
    hash.add(key);
    hash.add(uint64_t{value.index()});
    std::visit([&hash](const auto& held) { hash.add(held); }, value);
  }
  hash.add(uint64_t{groups.size()});
  for (const WeightGroup& group : groups) {
    hash.add(to_string(group.id));
    hash.add(uint64_t{group.tensors.size()});
    for (const Tensor& tensor : group.tensors) {
      hash.add(caravan::name(tensor.role));
      hash.add(caravan::name(tensor.type));
      hash.add(uint64_t{tensor.rows});
      hash.add(uint64_t{tensor.columns});
      hash.add(tensor.name);
    }
  }
  if (!source) return hash.finish();
  for (const Extent& place : sampled_places(groups)) {
    std::array<std::byte, kSampleBytes> sample{};
    source->read(place.file, place.offset, std::span(sample).first(place.length));
    hash.add_bytes(sample);
  }
  return hash.finish();
}

namespace {

Manifest read_manifest(const std::string& path, GgufPart part) {
  std::error_code error;
  const bool folder = std::filesystem::is_directory(path, error);
  if (!folder && !std::filesystem::exists(path, error))
    fail(ErrorCode::kNotFound, "{}: there is no such file or folder", path);
  Manifest manifest = folder ? read_hugging_face(path) : read_gguf_manifest(path, part);
  manifest.name = stem_of(path, folder);
  return manifest;
}

}  // namespace

Manifest read_manifest(const std::string& path) {
  return read_manifest(path, GgufPart::kWhole);
}

Manifest read_manifest_header(const std::string& path) {
  return read_manifest(path, GgufPart::kHeader);
}

}  // namespace caravan
