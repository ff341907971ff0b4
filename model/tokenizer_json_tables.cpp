#include "model/tokenizer_json_tables.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/limits.h"

namespace caravan {
namespace {

using Json = nlohmann::json;

// Told of everything by the parser; builds the tree.
class Builder final : public nlohmann::json_sax<Json> {
 public:
  explicit Builder(TokenizerJsonTables& tables) : tables_(tables) {}
  Json take() { return std::move(root_); }

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t&) override { return put(value); }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t& value) override { return put(std::move(value)); }
  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& value) override {
    key_ = std::move(value);
    return true;
  }
  bool parse_error(size_t, const std::string&, const Json::exception& error) override { throw error; }

 private:
  enum class Table { kNone, kVocabulary, kMerges };

  bool put(Json value) {
    if (table_ != Table::kNone) return take_entry(value), true;
    add(std::move(value));
    return true;
  }

  // The place stays until its container gets another member, which it does not while this one is open.
  Json* add(Json value) {
    if (open_.empty()) return &(root_ = std::move(value));
    Json& parent = *open_.back();
    if (!parent.is_array()) return &(parent[key_] = std::move(value));
    parent.push_back(std::move(value));
    return &parent.back();
  }

  bool open(Json container) {
    if (table_ != Table::kNone) {
      // Only a merge may be in parts.
      if (pair_ || table_ == Table::kVocabulary || !container.is_array()) refuse_entry();
      pair_ = std::move(container);
      return true;
    }
    if (open_.size() == 1) top_key_ = key_;
    const bool in_model = open_.size() == 2 && top_key_ == "model";
    if (in_model && key_ == "vocab" && container.is_object()) table_ = Table::kVocabulary;
    if (in_model && key_ == "merges" && container.is_array()) table_ = Table::kMerges;
    open_.push_back(add(std::move(container)));
    return true;
  }

  bool close() {
    if (pair_) {
      add_pair(*std::exchange(pair_, std::nullopt));
      return true;
    }
    open_.pop_back();
    table_ = Table::kNone;
    return true;
  }

  void take_entry(Json& value) {
    if (pair_) {
      if (pair_->size() == 2) refuse_entry();
      pair_->push_back(std::move(value));
    } else if (table_ == Table::kVocabulary) {
      add_token(value);
    } else if (value.is_string()) {
      add_merge(value.get_ref<const std::string&>());
    } else {
      refuse_entry();
    }
  }

  void add_token(const Json& value) {
    const TokenId id = token_id_of(
        value.is_number_unsigned() ? std::optional(value.get<uint64_t>()) : std::nullopt, tables_.name);
    if (tables_.ids.size() == limits::kMaxVocabulary)
      fail(ErrorCode::kLimit, "{}: more than {} tokens", tables_.name, limits::kMaxVocabulary);
    tables_.texts.push_back(key_);
    tables_.ids.push_back(id);
  }

  void add_merge(std::string_view both) {
    // The left part has at least one character, which may be a space in old files.
    const size_t space = both.find(' ', 1);
    if (space == std::string_view::npos)
      fail(ErrorCode::kMalformed, "{}: merge '{}' has one part", tables_.name, both);
    add_merge(both.substr(0, space), both.substr(space + 1));
  }

  void add_pair(const Json& pair) {
    if (pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string()) refuse_entry();
    add_merge(pair[0].get_ref<const std::string&>(), pair[1].get_ref<const std::string&>());
  }

  void add_merge(std::string_view left, std::string_view right) {
    if (tables_.merges.size() / 2 == limits::kMaxMetadataArray)
      fail(ErrorCode::kLimit, "{}: more than {} merges", tables_.name, limits::kMaxMetadataArray);
    tables_.merges.push_back(left);
    tables_.merges.push_back(right);
  }

  [[noreturn]] void refuse_entry() const {
    fail(ErrorCode::kMalformed, "{}: {}", tables_.name,
         table_ == Table::kVocabulary ? "a token whose id is no number" : "a merge that is not two texts");
  }

  TokenizerJsonTables& tables_;
  Json root_;
  std::vector<Json*> open_;     // containers, from the root
  std::string key_;             // of the member that comes
  std::string top_key_;         // of the root's member that is open
  Table table_ = Table::kNone;  // the innermost container, when it is a table
  std::optional<Json> pair_;    // a merge in two parts, as far as it has come
};

}  // namespace

std::string TokenizerJsonTables::parse(std::string_view text) {
  Builder builder(*this);
  Json::sax_parse(text.begin(), text.end(), &builder);
  Json json = builder.take();
  if (!json.is_object()) fail(ErrorCode::kMalformed, "{}: no JSON object", name);
  return json.dump();
}

TokenId token_id_of(std::optional<uint64_t> number, std::string_view name) {
  if (!number || *number >= limits::kMaxVocabulary)
    fail(ErrorCode::kMalformed, "{}: a token id that is no number below {}", name, limits::kMaxVocabulary);
  return static_cast<TokenId>(*number);
}

}  // namespace caravan
