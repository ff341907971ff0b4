// inspect and quantize.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/progress.h"
#include "base/source.h"
#include "daemon/commands.h"
#include "daemon/defaults.h"
#include "daemon/model_library.h"
#include "daemon/model_text.h"
#include "model/families.h"
#include "shards/quantize.h"

namespace caravan {

namespace {

using Json = nlohmann::ordered_json;

Json describe_group(const WeightGroup& group) {
  Json tensors = Json::array();
  for (const Tensor& tensor : group.tensors)
    tensors.push_back({{"name", tensor.name},
                       {"role", name(tensor.role)},
                       {"type", name(tensor.type)},
                       {"rows", tensor.rows},
                       {"columns", tensor.columns},
                       {"bytes", tensor.extent.length}});
  return {{"name", to_string(group.id)}, {"bytes", group.bytes().count}, {"tensors", tensors}};
}

Json describe(const Manifest& manifest, const ModelText& text) {
  Json json = {{"path", manifest.path},
               {"format", manifest.origin == Manifest::Origin::kGguf ? "gguf" : "huggingface"},
               {"name", manifest.name},
               {"architecture", manifest.architecture},
               {"family_known", family_is_known(manifest.architecture)},
               {"fingerprint", to_string(manifest.fingerprint())},
               {"layers", manifest.layer_count},
               {"bytes", manifest.bytes().count}};
  if (!manifest.groups.empty() && family_is_known(manifest.architecture)) {
    const ModelSpec spec = read_spec(manifest);
    json["family"] = spec.family;
    json["width"] = spec.width;
    json["vocabulary"] = spec.vocabulary;
    json["context"] = spec.context;
    json["heads"] = spec.layers[0].attention.shape.heads;
    json["kv_heads"] = spec.layers[0].attention.shape.kv_heads;
    json["head_width"] = spec.layers[0].attention.shape.head_width;
    json["experts"] = spec.layers.back().feed_forward.experts;
  }
  if (text.tokenizer)
    json["tokenizer"] = {{"tokens", text.tokenizer->size()}, {"chat_template", !text.chat_template.empty()}};
  else
    json["tokenizer"] = nullptr;
  json["groups"] = Json::array();
  for (const WeightGroup& group : manifest.groups) json["groups"].push_back(describe_group(group));
  json["ignored"] = manifest.ignored;
  return json;
}

// Groups of one kind that hold the same types and bytes are told in one line.
void print_groups(const Manifest& manifest) {
  std::printf("\n%-24s %8s  %12s  %s\n", "group", "tensors", "bytes", "types");
  std::string last_key, first_name, last_name;
  uint64_t repeats = 0, bytes = 0;
  size_t tensors = 0;
  std::string types;
  const auto flush = [&] {
    if (repeats == 0) return;
    const std::string label = repeats == 1 ? first_name : first_name + " .. " + last_name;
    std::printf("%-24s %8zu  %12s  %s%s\n", label.c_str(), tensors, to_string(Bytes{bytes}).c_str(),
                types.c_str(), repeats == 1 ? "" : (" (each of " + std::to_string(repeats) + ")").c_str());
  };
  std::vector<const WeightGroup*> order;
  for (const auto kind : {GroupId::Kind::kEmbed, GroupId::Kind::kAttention, GroupId::Kind::kFeedForward,
                          GroupId::Kind::kExpert, GroupId::Kind::kOutput})
    for (const WeightGroup& group : manifest.groups)
      if (group.id.kind == kind) order.push_back(&group);
  for (const WeightGroup* group : order) {
    std::map<std::string_view, int> found;
    for (const Tensor& tensor : group->tensors) ++found[name(tensor.type)];
    std::string text;
    for (const auto& [type, count] : found)
      text += (text.empty() ? "" : ", ") + std::to_string(count) + " " + std::string(type);
    const std::string key =
        std::to_string(static_cast<int>(group->id.kind)) + text + std::to_string(group->bytes().count);
    if (key != last_key) {
      flush();
      repeats = 0;
      first_name = to_string(group->id);
    }
    last_key = key;
    last_name = to_string(group->id);
    ++repeats;
    bytes = group->bytes().count;
    tensors = group->tensors.size();
    types = text;
  }
  flush();
}

// Empty, or a file that begins as GGUF files do: what an earlier run may have left.
bool may_be_replaced(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  char begin[4] = {};
  in.read(begin, sizeof begin);
  return in.gcount() == 0 || std::string_view(begin, static_cast<size_t>(in.gcount())) == "GGUF";
}

// A model is never written over itself: its other types would be gone for good. And over a file that is no
// model only where that was asked for.
void refuse_to_write_over(const Manifest& source, const std::string& output, bool force) {
  for (uint32_t file = 0; source.source && file < source.source->file_count(); ++file) {
    const auto path = source.source->file_path(file);
    std::error_code ignored;
    if (path && std::filesystem::equivalent(*path, output, ignored))
      fail(ErrorCode::kInvalidArgument, "{} is the source itself; give OUT another name", output);
  }
  std::error_code ignored;
  if (!force && std::filesystem::is_regular_file(output, ignored) && !may_be_replaced(output))
    fail(ErrorCode::kRefused, "{} is there already and no GGUF file; --force writes over it", output);
}

}  // namespace

int command_inspect(const CommandLine& line) {
  const Manifest manifest = open_model(line.model, line.config);
  const ModelText text = read_model_text(manifest);
  const Json json = describe(manifest, text);
  if (line.json) {
    std::printf("%s\n", json.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
    return 0;
  }
  for (const auto& [key, value] : json.items()) {
    if (key == "groups" || key == "tokenizer" || key == "ignored") continue;
    const std::string shown = key == "bytes"      ? to_string(manifest.bytes())
                              : value.is_string() ? value.get<std::string>()
                                                  : value.dump();
    std::printf("%-14s %s\n", key.c_str(), shown.c_str());
  }
  if (text.tokenizer)
    std::printf("%-14s %zu tokens, %s\n", "tokenizer", text.tokenizer->size(),
                text.chat_template.empty() ? "no chat template" : "with a chat template");
  else
    std::printf("%-14s none: %s\n", "tokenizer", text.no_tokenizer.c_str());
  if (!manifest.groups.empty()) print_groups(manifest);
  for (const std::string& tensor : manifest.ignored) std::printf("ignored        %s\n", tensor.c_str());
  return 0;
}

int command_quantize(const CommandLine& line) {
  const Manifest source = read_manifest(line.model);
  refuse_to_write_over(source, line.output, line.force);
  const SystemClock clock;
  Progress progress(clock, "quantize", Progress::Unit::kBytes, quantize_bytes(source),
                    standard_error_is_terminal(), standard_error());
  QuantizeOptions options;
  options.type = *tensor_type_from_name(line.type);
  options.threads = threads_of(line.config, 1);
  options.advance = [&](uint64_t bytes) { progress.advance(bytes); };
  std::vector<std::string> notes;
  options.note = [&](const std::string& message) { notes.push_back(message); };
  quantize_model(source, line.output, options);
  progress.finish();
  for (const std::string& note : notes) std::fprintf(stderr, "%s\n", note.c_str());
  const FileSource written({line.output});
  std::fprintf(stderr, "%s: %s, from %s\n", line.output.c_str(),
               to_string(Bytes{written.file_bytes(0)}).c_str(), to_string(source.bytes()).c_str());
  return 0;
}

}  // namespace caravan
