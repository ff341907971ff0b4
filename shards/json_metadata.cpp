#include "shards/json_metadata.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/limits.h"

namespace caravan {

namespace {

using nlohmann::json;

enum class Kind { kBool, kUnsigned, kSigned, kFloat, kString, kOther };

Kind kind_of(const json& value) {
  switch (value.type()) {
    case json::value_t::boolean:
      return Kind::kBool;
    case json::value_t::number_unsigned:
      return Kind::kUnsigned;
    case json::value_t::number_integer:
      return Kind::kSigned;
    case json::value_t::number_float:
      return Kind::kFloat;
    case json::value_t::string:
      return Kind::kString;
    default:
      return Kind::kOther;
  }
}

// The kind that holds every element; numbers widen from unsigned to signed to float.
Kind common_kind(const json& array) {
  Kind common = array.empty() ? Kind::kUnsigned : kind_of(array[0]);
  for (const json& element : array) {
    const Kind kind = kind_of(element);
    const auto is_number = [](Kind k) {
      return k == Kind::kUnsigned || k == Kind::kSigned || k == Kind::kFloat;
    };
    if (is_number(kind) && is_number(common))
      common = std::max(common, kind);
    else if (kind != common)
      return Kind::kOther;
  }
  return common;
}

class Flattener {
 public:
  Flattener(std::string_view where, std::set<std::string>* nulls)
      : metadata_(std::string(where)), nulls_(nulls) {}

  void add(const std::string& key, const json& value) {
    if (key.size() > limits::kMaxKeyBytes)
      fail(ErrorCode::kLimit, "{}: a key is longer than {} bytes", metadata_.where(), limits::kMaxKeyBytes);
    if (value.is_object()) {
      for (const auto& [name, inner] : value.items()) add(key.empty() ? name : key + "." + name, inner);
      return;
    }
    if (value.is_null()) {
      if (nulls_) nulls_->insert(key);
      return;
    }
    if (!value.is_array()) return set(key, scalar(value));
    const Kind kind = common_kind(value);
    if (kind != Kind::kOther) return set(key, array(value, kind));
    for (size_t i = 0; i < value.size(); ++i) add(key + "." + std::to_string(i), value[i]);
  }

  Metadata take() { return std::move(metadata_); }

 private:
  void set(const std::string& key, Metadata::Value value) {
    if (metadata_.has(key))
      fail(ErrorCode::kMalformed, "{}: two values have the key {}", metadata_.where(), key);
    if (metadata_.values().size() >= limits::kMaxMetadataEntries)
      fail(ErrorCode::kLimit, "{}: more than {} values", metadata_.where(), limits::kMaxMetadataEntries);
    metadata_.set(key, std::move(value));
  }

  static Metadata::Value scalar(const json& value) {
    switch (kind_of(value)) {
      case Kind::kBool:
        return value.get<bool>();
      case Kind::kUnsigned:
        return value.get<uint64_t>();
      case Kind::kSigned:
        return value.get<int64_t>();
      case Kind::kFloat:
        return value.get<double>();
      default:
        return value.get<std::string>();
    }
  }

  static Metadata::Value array(const json& value, Kind kind) {
    switch (kind) {
      case Kind::kBool:
        return value.get<std::vector<bool>>();
      case Kind::kUnsigned:
        return value.get<std::vector<uint64_t>>();
      case Kind::kSigned:
        return value.get<std::vector<int64_t>>();
      case Kind::kFloat:
        return value.get<std::vector<double>>();
      default:
        return TextList(value.get<std::vector<std::string>>());
    }
  }

  Metadata metadata_;
  std::set<std::string>* const nulls_;
};

}  // namespace

void require_small_json(std::string_view text, std::string_view where, uint64_t most_bytes) {
  if (text.size() > most_bytes)
    fail(ErrorCode::kLimit, "{}: {} bytes of JSON are more than {}", where, text.size(), most_bytes);
  uint32_t depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      if (++depth > limits::kMaxJsonDepth)
        fail(ErrorCode::kLimit, "{}: JSON nested deeper than {}", where, limits::kMaxJsonDepth);
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
}

std::string json_reason(std::string_view what) {
  // "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error while ..."
  constexpr std::string_view kLibrary = "[json.exception.", kPlace = "parse error at ",
                             kNoPlace = "parse error: ";
  if (const size_t end = what.find("] "); what.starts_with(kLibrary) && end != std::string_view::npos)
    what.remove_prefix(end + 2);
  for (const std::string_view words : {kPlace, kNoPlace})
    if (what.starts_with(words)) what.remove_prefix(words.size());
  return std::string(what);
}

Metadata flatten_json(std::string_view text, std::string_view where, std::set<std::string>* nulls) {
  require_small_json(text, where, limits::kMaxConfigBytes);
  try {
    const json root = json::parse(text);
    if (!root.is_object()) fail(ErrorCode::kMalformed, "{}: not a JSON object", where);
    Flattener flattener(where, nulls);
    flattener.add("", root);
    return flattener.take();
  } catch (const json::exception& error) {
    fail(ErrorCode::kMalformed, "{}: {}", where, json_reason(error.what()));
  }
}

}  // namespace caravan
