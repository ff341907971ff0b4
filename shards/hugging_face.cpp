#include "shards/hugging_face.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <system_error>

#include "base/error.h"
#include "base/limits.h"
#include "shards/config_defaults.h"
#include "shards/groups.h"
#include "shards/json_metadata.h"
#include "shards/safetensors.h"

namespace caravan {

namespace {

bool is_there(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

std::string read_text(const std::string& path, uint64_t most_bytes) {
  const FileSource source({path});
  const uint64_t bytes = source.file_bytes(0);
  if (bytes > most_bytes) fail(ErrorCode::kLimit, "{}: {} bytes are more than {}", path, bytes, most_bytes);
  std::string text(bytes, '\0');
  source.read(0, 0, std::as_writable_bytes(std::span(text)));
  return text;
}

std::string read_optional_text(const std::string& path, uint64_t most_bytes) {
  return is_there(path) ? read_text(path, most_bytes) : std::string();
}

// The template that a JSON file keeps under "chat_template": one text, or several by name of which "default"
// is meant.
std::string template_in(const std::string& text, const std::string& where) {
  if (text.empty()) return {};
  const Metadata facts = flatten_json(text, where);
  if (facts.has("chat_template")) return facts.text("chat_template").value_or("");
  for (size_t i = 0; facts.has(fmt::format("chat_template.{}.name", i)); ++i)
    if (facts.text(fmt::format("chat_template.{}.name", i)) == "default")
      return facts.text(fmt::format("chat_template.{}.template", i)).value_or("");
  return {};
}

void read_texts(Manifest& manifest, const std::string& folder) {
  manifest.tokenizer_json = read_optional_text(folder + "tokenizer.json", limits::kMaxJsonBytes);
  manifest.tokenizer_config_json =
      read_optional_text(folder + "tokenizer_config.json", limits::kMaxConfigBytes);
  manifest.generation_config_json =
      read_optional_text(folder + "generation_config.json", limits::kMaxConfigBytes);
  manifest.chat_template = read_optional_text(folder + "chat_template.jinja", limits::kMaxTemplateBytes);
  if (manifest.chat_template.empty())
    manifest.chat_template =
        template_in(read_optional_text(folder + "chat_template.json", limits::kMaxConfigBytes),
                    folder + "chat_template.json");
  if (manifest.chat_template.empty())
    manifest.chat_template = template_in(manifest.tokenizer_config_json, folder + "tokenizer_config.json");
}

struct Weights {
  std::vector<std::string> files;  // names in the folder
  std::map<std::string, std::string> index;
};

Weights find_weights(const std::string& folder) {
  if (is_there(folder + "model.safetensors")) return {{"model.safetensors"}, {}};
  const std::string index = folder + "model.safetensors.index.json";
  if (!is_there(index))
    fail(ErrorCode::kNotFound, "{}: neither model.safetensors nor model.safetensors.index.json is there",
         folder);
  Weights weights;
  weights.index = read_safetensors_index(read_text(index, limits::kMaxJsonBytes), index);
  std::set<std::string> files;
  for (const auto& [tensor, file] : weights.index) files.insert(file);
  if (files.size() > limits::kMaxShardFiles)
    fail(ErrorCode::kLimit, "{}: {} files are more than {}", index, files.size(), limits::kMaxShardFiles);
  weights.files.assign(files.begin(), files.end());
  return weights;
}

FileTensor file_tensor(const SafetensorsEntry& entry, uint32_t file) {
  FileTensor tensor{entry.name, entry.type, entry.dtype, entry.shape, {file, entry.offset, entry.bytes}};
  std::reverse(tensor.dimensions.begin(), tensor.dimensions.end());
  return tensor;
}

// All tensors of all files; of a sharded model those that the index places in the file where they are found.
std::vector<FileTensor> list_tensors(const FileSource& source, const Weights& weights, Manifest& manifest) {
  std::vector<FileTensor> tensors;
  size_t indexed = 0;
  for (uint32_t file = 0; file < source.file_count(); ++file) {
    const auto bytes = source.mapped({file, 0, source.file_bytes(file)});
    for (const SafetensorsEntry& entry : read_safetensors(bytes, source.path(file))) {
      if (!weights.index.empty()) {
        const auto place = weights.index.find(entry.name);
        if (place == weights.index.end() || place->second != weights.files[file]) {
          manifest.ignored.push_back(entry.name);
          continue;
        }
        ++indexed;
      }
      tensors.push_back(file_tensor(entry, file));
    }
  }
  if (indexed == weights.index.size()) return tensors;
  std::set<std::string> found;
  for (const FileTensor& tensor : tensors) found.insert(tensor.name);
  for (const auto& [tensor, file] : weights.index)
    if (!found.count(tensor))
      fail(ErrorCode::kMalformed, "{}: tensor {} is not in {}, where the index places it", manifest.path,
           tensor, file);
  return tensors;
}

}  // namespace

Manifest read_hugging_face(const std::string& path) {
  const std::string folder = path.back() == '/' ? path : path + "/";
  if (!is_there(folder + "config.json"))
    fail(ErrorCode::kNotFound, "{}: no model folder (config.json is missing)", path);
  Manifest manifest;
  manifest.origin = Manifest::Origin::kHuggingFace;
  manifest.path = path;
  std::set<std::string> nulls;
  manifest.metadata = flatten_json(read_text(folder + "config.json", limits::kMaxConfigBytes),
                                   folder + "config.json", &nulls);
  const auto architecture = manifest.metadata.text("model_type");
  if (!architecture) fail(ErrorCode::kMalformed, "{}config.json: key model_type is missing", folder);
  manifest.architecture = *architecture;
  add_config_defaults(*architecture, nulls, manifest.metadata);
  read_texts(manifest, folder);
  const Weights weights = find_weights(folder);
  std::vector<std::string> paths;
  for (const std::string& file : weights.files) paths.push_back(folder + file);
  const auto source = std::make_shared<FileSource>(paths);
  const auto tensors = list_tensors(*source, weights, manifest);
  manifest.source = source;
  const std::optional<bool> tied = manifest.metadata.boolean("tie_word_embeddings");
  assign_groups(manifest, tensors, tied.value_or(false));
  const WeightGroup *embed = manifest.find({GroupId::Kind::kEmbed}),
                    *output = manifest.find({GroupId::Kind::kOutput});
  const Tensor* table = embed ? embed->find(Role::kEmbedding) : nullptr;
  const Tensor* matrix = output ? output->find(Role::kOutput) : nullptr;
  if (tied == false && table && matrix && table->name == matrix->name)
    fail(ErrorCode::kMalformed, "{}: tie_word_embeddings is false and there is no output matrix (lm_head)",
         path);
  return manifest;
}

}  // namespace caravan
