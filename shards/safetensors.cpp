#include "shards/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "base/bytes.h"
#include "base/error.h"
#include "base/limits.h"
#include "shards/json_metadata.h"

namespace caravan {

namespace {

using nlohmann::json;

// An object whose own keys are all different (a parser would silently keep the last).
json parse_object(std::string_view text, std::string_view where) {
  require_small_json(text, where, limits::kMaxJsonBytes);
  try {
    std::set<std::string, std::less<>> names;
    json root = json::parse(text, [&](int depth, json::parse_event_t event, json& key) {
      if (event != json::parse_event_t::key || depth != 1) return true;
      const auto& name = key.get_ref<const std::string&>();
      if (!names.insert(name).second)
        fail(ErrorCode::kMalformed, "{}: {} is there twice", where, name.substr(0, limits::kMaxKeyBytes));
      return true;
    });
    if (!root.is_object()) fail(ErrorCode::kMalformed, "{}: not a JSON object", where);
    return root;
  } catch (const json::exception& error) {
    fail(ErrorCode::kMalformed, "{}: {}", where, json_reason(error.what()));
  }
}

// Bytes of an element, 0 for a dtype whose size is not known here (F8 variants are one byte).
uint64_t element_bytes(std::string_view dtype) {
  if (dtype == "F64" || dtype == "I64" || dtype == "U64" || dtype == "C64") return 8;
  if (dtype == "F32" || dtype == "I32" || dtype == "U32") return 4;
  if (dtype == "F16" || dtype == "BF16" || dtype == "I16" || dtype == "U16") return 2;
  if (dtype == "BOOL" || dtype == "I8" || dtype == "U8" || dtype.substr(0, 3) == "F8_") return 1;
  return 0;
}

std::optional<TensorType> computable_type(std::string_view dtype) {
  if (dtype == "F32") return TensorType::kF32;
  if (dtype == "F16") return TensorType::kF16;
  if (dtype == "BF16") return TensorType::kBF16;
  return std::nullopt;
}

uint64_t checked_integer(const json& value, std::string_view file, std::string_view tensor) {
  if (!value.is_number_unsigned())
    fail(ErrorCode::kMalformed, "{}: tensor {}: a size or offset is no non-negative integer", file, tensor);
  return value.get<uint64_t>();
}

SafetensorsEntry read_entry(const std::string& tensor, const json& value, uint64_t data, uint64_t file_bytes,
                            std::string_view file) {
  const auto refuse = [&](std::string_view reason) {
    fail(ErrorCode::kMalformed, "{}: tensor {}: {}", file, tensor, reason);
  };
  if (tensor.size() > limits::kMaxKeyBytes) refuse("its name is too long");
  if (!value.is_object() || !value.contains("dtype") || !value["dtype"].is_string() ||
      !value.contains("shape") || !value["shape"].is_array() || !value.contains("data_offsets") ||
      !value["data_offsets"].is_array() || value["data_offsets"].size() != 2)
    refuse("dtype, shape or data_offsets is missing or of another kind");
  SafetensorsEntry entry;
  entry.name = tensor;
  entry.dtype = value["dtype"].get<std::string>();
  entry.type = computable_type(entry.dtype);
  if (value["shape"].size() > 2 * limits::kMaxTensorDimensions) refuse("it has too many dimensions");
  uint64_t bytes = element_bytes(entry.dtype);
  for (const json& size : value["shape"]) {
    entry.shape.push_back(checked_integer(size, file, tensor));
    if (!checked_multiply(bytes, entry.shape.back(), bytes))
      refuse("its shape multiplies to more than 64 bits");
  }
  const uint64_t begin = checked_integer(value["data_offsets"][0], file, tensor);
  const uint64_t end = checked_integer(value["data_offsets"][1], file, tensor);
  if (begin > end || end > file_bytes - data)
    refuse(fmt::format("offsets {} to {} lie outside the {} bytes of data", begin, end, file_bytes - data));
  if (element_bytes(entry.dtype) != 0 && end - begin != bytes)
    refuse(fmt::format("{} bytes where its shape and {} make {}", end - begin, entry.dtype, bytes));
  entry.offset = data + begin;
  entry.bytes = end - begin;
  return entry;
}

// The tensors fill the data from its first byte to the file's last, as the format asks.
void check_layout(const std::vector<SafetensorsEntry>& entries, uint64_t data, uint64_t file_bytes,
                  std::string_view file) {
  std::vector<const SafetensorsEntry*> sorted;
  sorted.reserve(entries.size());
  for (const SafetensorsEntry& entry : entries)
    if (entry.bytes > 0) sorted.push_back(&entry);
  std::sort(sorted.begin(), sorted.end(),
            [](const SafetensorsEntry* a, const SafetensorsEntry* b) { return a->offset < b->offset; });
  uint64_t end = data;
  for (size_t i = 0; i < sorted.size(); ++i) {
    const SafetensorsEntry& entry = *sorted[i];
    if (entry.offset < end)
      fail(ErrorCode::kMalformed, "{}: tensors {} and {} overlap", file, sorted[i - 1]->name, entry.name);
    if (entry.offset > end)
      fail(ErrorCode::kMalformed, "{}: tensor {}: {} bytes before it belong to no tensor", file, entry.name,
           entry.offset - end);
    end += entry.bytes;
  }
  if (end != file_bytes)
    fail(ErrorCode::kMalformed, "{}: {} bytes after the last tensor belong to none", file, file_bytes - end);
}

bool stays_in_folder(std::string_view file) {
  return !file.empty() && file != "." && file != ".." &&
         file.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
}

}  // namespace

std::vector<SafetensorsEntry> read_safetensors(std::span<const std::byte> file, std::string_view name) {
  uint64_t header = 0;
  if (file.size() < sizeof header)
    fail(ErrorCode::kMalformed, "{}: cut short: {} bytes hold no safetensors header", name, file.size());
  std::memcpy(&header, file.data(), sizeof header);
  if (header > file.size() - sizeof header)
    fail(ErrorCode::kMalformed,
         "{}: cut short, or no safetensors file: it has {} bytes, its header says that it takes {} of them",
         name, file.size(), header);
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + sizeof header, header);
  const json root = parse_object(text, name);
  if (root.size() > limits::kMaxTensors + 1)
    fail(ErrorCode::kLimit, "{}: {} tensors are more than {}", name, root.size(), limits::kMaxTensors);
  std::vector<SafetensorsEntry> entries;
  entries.reserve(root.size());
  for (const auto& [tensor, value] : root.items())
    if (tensor != "__metadata__")
      entries.push_back(read_entry(tensor, value, sizeof header + header, file.size(), name));
  check_layout(entries, sizeof header + header, file.size(), name);
  return entries;
}

std::map<std::string, std::string> read_safetensors_index(std::string_view text, std::string_view name) {
  const json root = parse_object(text, name);
  const auto map = root.find("weight_map");
  if (map == root.end() || !map->is_object()) fail(ErrorCode::kMalformed, "{}: weight_map is missing", name);
  if (map->size() > limits::kMaxTensors)
    fail(ErrorCode::kLimit, "{}: {} tensors are more than {}", name, map->size(), limits::kMaxTensors);
  std::map<std::string, std::string> files;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string() || !stays_in_folder(file.get_ref<const std::string&>()))
      fail(ErrorCode::kMalformed, "{}: tensor {}: {} names no file of this folder", name, tensor,
           file.dump(-1, ' ', true, json::error_handler_t::replace));
    files[tensor] = file.get<std::string>();
  }
  return files;
}

}  // namespace caravan
