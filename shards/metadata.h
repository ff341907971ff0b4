#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/text_list.h"

namespace caravan {

// A file's key-value facts under the file's own names: GGUF metadata keys as they are ("llama.block_count"),
// a Hugging Face config.json flattened with dots ("rope_parameters.rope_theta"; arrays of one kind as
// vectors; null left out).
class Metadata {
 public:
  using Value = std::variant<bool, int64_t, uint64_t, double, std::string, std::vector<bool>,
                             std::vector<int64_t>, std::vector<uint64_t>, std::vector<double>, TextList>;

  explicit Metadata(std::string where = "metadata") : where_(std::move(where)) {}
  void set(std::string key, Value value) { values_.insert_or_assign(std::move(key), std::move(value)); }
  // All keys that begin with `prefix`.
  void drop(std::string_view prefix);
  const std::map<std::string, Value, std::less<>>& values() const { return values_; }
  bool has(std::string_view key) const { return values_.find(key) != values_.end(); }
  // Nothing when the key is not there; kMalformed (naming file and key) when its value has another type.
  // Integers are read from either signedness, numbers from integers too.
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<uint64_t> integer(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;
  std::optional<std::string> text(std::string_view key) const;
  std::optional<std::vector<uint64_t>> integers(std::string_view key) const;
  std::optional<std::vector<double>> numbers(std::string_view key) const;
  std::optional<std::vector<bool>> booleans(std::string_view key) const;
  // By pointer, since vocabularies are long; null when absent.
  const TextList* texts(std::string_view key) const;
  const std::string& where() const { return where_; }

 private:
  std::string where_;
  std::map<std::string, Value, std::less<>> values_;
};

}  // namespace caravan
