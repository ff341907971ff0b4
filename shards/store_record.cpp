#include "shards/store_record.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/limits.h"
#include "shards/names.h"
#include "shards/store_codec.h"

namespace caravan {

namespace {

constexpr std::string_view kModelKind = "caravan model 1";
constexpr std::string_view kHashKind = "caravan hashes 1";

void put_value(RecordWriter& out, const Metadata::Value& value) {
  out.number(static_cast<uint8_t>(value.index()));
  const auto put = [&out](const auto& held) {
    using Held = std::decay_t<decltype(held)>;
    if constexpr (std::is_same_v<Held, std::string> || std::is_same_v<Held, std::string_view>)
      out.text(held);
    else if constexpr (std::is_same_v<Held, bool>)
      out.number(static_cast<uint8_t>(held));
    else
      out.number(held);
  };
  std::visit(
      [&](const auto& held) {
        using Held = std::decay_t<decltype(held)>;
        if constexpr (std::is_arithmetic_v<Held> || std::is_same_v<Held, std::string>) {
          put(held);
        } else {
          out.number(uint64_t{held.size()});
          for (auto&& element : held) put(static_cast<const typename Held::value_type&>(element));
        }
      },
      value);
}

template <class Held>
Held get_one(RecordReader& in) {
  if constexpr (std::is_same_v<Held, std::string>)
    return in.text(limits::kMaxStringBytes);
  else if constexpr (std::is_same_v<Held, bool>)
    return in.flag();
  else
    return in.number<Held>();
}

Metadata::Value get_texts(RecordReader& in) {
  const uint64_t count = in.count(limits::kMaxMetadataArray, 8);
  TextList values;
  values.reserve(count);
  for (uint64_t i = 0; i < count; ++i) values.push_back(in.view(limits::kMaxStringBytes));
  values.shrink_to_fit();
  return values;
}

template <class Held>
Metadata::Value get_array(RecordReader& in) {
  const uint64_t least = std::is_same_v<Held, bool> ? 1 : 8;
  const uint64_t count = in.count(limits::kMaxMetadataArray, least);
  std::vector<Held> values;
  values.reserve(count);
  for (uint64_t i = 0; i < count; ++i) values.push_back(get_one<Held>(in));
  return values;
}

// The numbers are the places in Metadata::Value.
Metadata::Value get_value(RecordReader& in) {
  static_assert(std::variant_size_v<Metadata::Value> == 10);
  switch (in.number<uint8_t>()) {
    case 0:
      return get_one<bool>(in);
    case 1:
      return get_one<int64_t>(in);
    case 2:
      return get_one<uint64_t>(in);
    case 3:
      return get_one<double>(in);
    case 4:
      return get_one<std::string>(in);
    case 5:
      return get_array<bool>(in);
    case 6:
      return get_array<int64_t>(in);
    case 7:
      return get_array<uint64_t>(in);
    case 8:
      return get_array<double>(in);
    case 9:
      return get_texts(in);
    default:
      in.refuse("a fact is of no known kind");
  }
}

Metadata get_metadata(RecordReader& in) {
  Metadata metadata(in.text(limits::kMaxPathBytes));
  const uint64_t count = in.count(limits::kMaxMetadataEntries, 10);
  std::string last;
  for (uint64_t i = 0; i < count; ++i) {
    std::string key = in.text(limits::kMaxKeyBytes);
    if (i > 0 && key <= last) in.refuse("facts are out of order");
    last = key;
    metadata.set(std::move(key), get_value(in));
  }
  return metadata;
}

void put_files(RecordWriter& out, const std::vector<FileStamp>& files) {
  out.number(uint64_t{files.size()});
  for (const FileStamp& file : files) {
    out.text(file.path);
    out.number(file.bytes);
    out.number(file.modified_ns);
  }
}

std::vector<FileStamp> get_files(RecordReader& in) {
  std::vector<FileStamp> files(in.count(limits::kMaxShardFiles, 24));
  for (FileStamp& file : files) {
    file.path = in.text(limits::kMaxPathBytes);
    file.bytes = in.number<uint64_t>();
    file.modified_ns = in.number<int64_t>();
  }
  return files;
}

void put_tensor(RecordWriter& out, const Tensor& tensor) {
  out.text(tensor.name);
  out.number(static_cast<uint8_t>(tensor.role));
  out.number(static_cast<uint32_t>(tensor.type));
  out.number(tensor.rows);
  out.number(tensor.columns);
  out.number(tensor.extent.file);
  out.number(tensor.extent.offset);
}

// Bytes of a tensor are what type and shape give; the record does not say them.
Tensor get_tensor(RecordReader& in, const std::vector<FileStamp>& files) {
  Tensor tensor;
  tensor.name = in.text(limits::kMaxKeyBytes);
  const auto role = in.number<uint8_t>();
  if (role >= kRoleCount) in.refuse("a tensor has no known role");
  tensor.role = static_cast<Role>(role);
  const auto type = tensor_type_from_ggml(in.number<uint32_t>());
  if (!type) in.refuse("a tensor is of no known type");
  tensor.type = *type;
  tensor.rows = in.number<uint32_t>();
  tensor.columns = in.number<uint32_t>();
  if (tensor.rows == 0 || tensor.columns == 0 || tensor.columns % traits(*type).block_elements != 0)
    in.refuse("a tensor has an impossible shape");
  if (is_vector(tensor.role) && tensor.rows != 1) in.refuse("a vector has rows");
  tensor.extent.file = in.number<uint32_t>();
  tensor.extent.offset = in.number<uint64_t>();
  uint64_t end = 0;
  if (!checked_multiply(tensor.rows, row_bytes(*type, tensor.columns), tensor.extent.length) ||
      !checked_add(tensor.extent.offset, tensor.extent.length, end) || tensor.extent.file >= files.size() ||
      end > files[tensor.extent.file].bytes)
    in.refuse("a tensor lies outside its file");
  return tensor;
}

WeightGroup get_group(RecordReader& in, const std::vector<FileStamp>& files, uint64_t& tensors_left) {
  WeightGroup group;
  const auto kind = in.number<uint8_t>();
  if (kind > static_cast<uint8_t>(GroupId::Kind::kOutput)) in.refuse("a group is of no known kind");
  group.id = {static_cast<GroupId::Kind>(kind), in.number<uint32_t>(), in.number<uint32_t>()};
  const bool layered = group.id.kind != GroupId::Kind::kEmbed && group.id.kind != GroupId::Kind::kOutput;
  if (group.id.layer >= (layered ? limits::kMaxLayers : 1) ||
      group.id.expert >= (group.id.kind == GroupId::Kind::kExpert ? limits::kMaxExperts : 1))
    in.refuse("a group has an impossible number");
  group.tensors.resize(in.count(std::min<uint64_t>(kRoleCount, tensors_left), 33));
  if (group.tensors.empty()) in.refuse("a group has no tensors");
  tensors_left -= group.tensors.size();
  uint64_t sum = 0;
  for (size_t i = 0; i < group.tensors.size(); ++i) {
    group.tensors[i] = get_tensor(in, files);
    if (i > 0 && group.tensors[i - 1].role >= group.tensors[i].role) in.refuse("tensors are out of order");
    if (!checked_add(sum, group.tensors[i].extent.length, sum) || sum > limits::kMaxGroupBytes)
      in.refuse("a group is too large");
  }
  return group;
}

// As shards/groups.cpp leaves them: experts of a layer without holes, all with the tensors of the first.
void check_expert(const RecordReader& in, const std::vector<WeightGroup>& before, const WeightGroup& group) {
  if (group.id.kind != GroupId::Kind::kExpert) return;
  const bool follows = !before.empty() && before.back().id.kind == GroupId::Kind::kExpert &&
                       before.back().id.layer == group.id.layer;
  if (group.id.expert != (follows ? before.back().id.expert + 1 : 0)) in.refuse("an expert is missing");
  if (!follows) return;
  const std::vector<Tensor>& other = before.back().tensors;
  if (other.size() != group.tensors.size()) in.refuse("experts differ in their tensors");
  for (size_t i = 0; i < other.size(); ++i)
    if (other[i].role != group.tensors[i].role || other[i].rows != group.tensors[i].rows ||
        other[i].columns != group.tensors[i].columns)
      in.refuse("experts differ in their shapes");
}

void get_groups(RecordReader& in, ModelRecord& record) {
  Manifest& manifest = record.manifest;
  manifest.layer_count = in.number<uint32_t>();
  if (manifest.layer_count > limits::kMaxLayers) in.refuse("it has too many layers");
  const uint64_t count = in.count(limits::kMaxTensors, 50);
  uint64_t tensors_left = limits::kMaxTensors * uint64_t{2};
  manifest.groups.reserve(count);
  record.hashes.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    WeightGroup group = get_group(in, record.files, tensors_left);
    if (!manifest.groups.empty() && manifest.groups.back().id >= group.id)
      in.refuse("groups are out of order");
    if (group.id.layer >= std::max(1u, manifest.layer_count)) in.refuse("a group is of no layer");
    check_expert(in, manifest.groups, group);
    manifest.groups.push_back(std::move(group));
    record.hashes.push_back(in.hash());
  }
}

}  // namespace

ModelRecord without_paths(ModelRecord record) {
  record.copied = true;
  Manifest& manifest = record.manifest;
  manifest.path = manifest.name;
  manifest.source = nullptr;
  Metadata metadata(manifest.name);
  for (const auto& [key, value] : manifest.metadata.values()) metadata.set(key, value);
  manifest.metadata = std::move(metadata);
  for (FileStamp& file : record.files) {
    file.path.clear();
    file.modified_ns = 0;
  }
  return record;
}

std::string encode_model_record(const ModelRecord& record) {
  const Manifest& manifest = record.manifest;
  RecordWriter out(kModelKind);
  out.hash(record.fingerprint);
  out.number(static_cast<uint8_t>(record.copied));
  out.number(static_cast<uint8_t>(manifest.origin == Manifest::Origin::kHuggingFace));
  for (const std::string* text :
       {&manifest.name, &manifest.path, &manifest.architecture, &manifest.tokenizer_json,
        &manifest.tokenizer_config_json, &manifest.generation_config_json, &manifest.chat_template})
    out.text(*text);
  out.number(uint64_t{manifest.ignored.size()});
  for (const std::string& tensor : manifest.ignored) out.text(tensor);
  put_files(out, record.files);
  out.text(manifest.metadata.where());
  out.number(uint64_t{manifest.metadata.values().size()});
  for (const auto& [key, value] : manifest.metadata.values()) {
    out.text(key);
    put_value(out, value);
  }
  out.number(manifest.layer_count);
  out.number(uint64_t{manifest.groups.size()});
  for (size_t i = 0; i < manifest.groups.size(); ++i) {
    const WeightGroup& group = manifest.groups[i];
    out.number(static_cast<uint8_t>(group.id.kind));
    out.number(group.id.layer);
    out.number(group.id.expert);
    out.number(uint64_t{group.tensors.size()});
    for (const Tensor& tensor : group.tensors) put_tensor(out, tensor);
    out.hash(record.hashes.at(i));
  }
  return out.finish();
}

ModelRecord decode_model_record(std::string_view bytes, std::string_view where) {
  if (bytes.size() > limits::kMaxModelRecordBytes)
    fail(ErrorCode::kLimit, "{}: a record of {} bytes is over {}", where, bytes.size(),
         limits::kMaxModelRecordBytes);
  RecordReader in(bytes, kModelKind, where);
  ModelRecord record;
  Manifest& manifest = record.manifest;
  record.fingerprint = in.hash();
  record.copied = in.flag();
  manifest.origin = in.flag() ? Manifest::Origin::kHuggingFace : Manifest::Origin::kGguf;
  manifest.name = in.text(limits::kMaxNameBytes);
  manifest.path = in.text(limits::kMaxPathBytes);
  manifest.architecture = in.text(limits::kMaxKeyBytes);
  manifest.tokenizer_json = in.text(limits::kMaxJsonBytes);
  manifest.tokenizer_config_json = in.text(limits::kMaxConfigBytes);
  manifest.generation_config_json = in.text(limits::kMaxConfigBytes);
  manifest.chat_template = in.text(limits::kMaxStringBytes);
  manifest.ignored.resize(in.count(limits::kMaxTensors, 8));
  for (std::string& tensor : manifest.ignored) tensor = in.text(limits::kMaxKeyBytes);
  record.files = get_files(in);
  manifest.metadata = get_metadata(in);
  get_groups(in, record);
  in.end();
  return record;
}

std::string encode_hash_record(const HashRecord& record) {
  RecordWriter out(kHashKind);
  put_files(out, record.files);
  out.number(uint64_t{record.groups.size()});
  for (const auto& [place, content] : record.groups) {
    out.hash(place);
    out.hash(content);
  }
  return out.finish();
}

HashRecord decode_hash_record(std::string_view bytes, std::string_view where) {
  RecordReader in(bytes, kHashKind, where);
  HashRecord record;
  record.files = get_files(in);
  record.groups.resize(in.count(limits::kMaxTensors, 64));
  for (auto& [place, content] : record.groups) {
    place = in.hash();
    content = in.hash();
  }
  in.end();
  return record;
}

}  // namespace caravan
