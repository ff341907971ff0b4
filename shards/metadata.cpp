#include "shards/metadata.h"

#include "base/error.h"

namespace caravan {

namespace {

using Value = Metadata::Value;

[[noreturn]] void wrong_type(const Metadata& metadata, std::string_view key, std::string_view wanted) {
  fail(ErrorCode::kMalformed, "{}: key {} is not {}", metadata.where(), key, wanted);
}

const Value* find(const Metadata& metadata, std::string_view key) {
  const auto found = metadata.values().find(key);
  return found == metadata.values().end() ? nullptr : &found->second;
}

template <class T>
bool is_empty(const T&) {
  return false;
}
template <class T>
bool is_empty(const std::vector<T>& values) {
  return values.empty();
}

bool is_empty(const TextList& values) {
  return values.empty();
}

// An empty array has no kind of its own.
bool is_empty_array(const Value& value) {
  return std::visit([](const auto& held) { return is_empty(held); }, value);
}

template <class To, class From>
std::vector<To> converted(const std::vector<From>& values) {
  return std::vector<To>(values.begin(), values.end());
}

}  // namespace

void Metadata::drop(std::string_view prefix) {
  std::erase_if(values_, [&](const auto& entry) { return entry.first.starts_with(prefix); });
}

std::optional<bool> Metadata::boolean(std::string_view key) const {
  const Value* value = find(*this, key);
  if (!value) return std::nullopt;
  if (const auto* held = std::get_if<bool>(value)) return *held;
  wrong_type(*this, key, "a boolean");
}

std::optional<uint64_t> Metadata::integer(std::string_view key) const {
  const Value* value = find(*this, key);
  if (!value) return std::nullopt;
  if (const auto* held = std::get_if<uint64_t>(value)) return *held;
  if (const auto* held = std::get_if<int64_t>(value); held && *held >= 0) return static_cast<uint64_t>(*held);
  wrong_type(*this, key, "a non-negative integer");
}

std::optional<double> Metadata::number(std::string_view key) const {
  const Value* value = find(*this, key);
  if (!value) return std::nullopt;
  if (const auto* held = std::get_if<double>(value)) return *held;
  if (const auto* held = std::get_if<uint64_t>(value)) return static_cast<double>(*held);
  if (const auto* held = std::get_if<int64_t>(value)) return static_cast<double>(*held);
  wrong_type(*this, key, "a number");
}

std::optional<std::string> Metadata::text(std::string_view key) const {
  const Value* value = find(*this, key);
  if (!value) return std::nullopt;
  if (const auto* held = std::get_if<std::string>(value)) return *held;
  wrong_type(*this, key, "a string");
}

std::optional<std::vector<uint64_t>> Metadata::integers(std::string_view key) const {
  const Value* value = find(*this, key);
  if (!value) return std::nullopt;
  if (is_empty_array(*value)) return std::vector<uint64_t>{};
  if (const auto* held = std::get_if<std::vector<uint64_t>>(value)) return *held;
  if (const auto* held = std::get_if<std::vector<int64_t>>(value)) {
    for (const int64_t element : *held)
      if (element < 0) wrong_type(*this, key, "an array of non-negative integers");
    return converted<uint64_t>(*held);
  }
  wrong_type(*this, key, "an array of integers");
}

std::optional<std::vector<double>> Metadata::numbers(std::string_view key) const {
  const Value* value = find(*this, key);
  if (!value) return std::nullopt;
  if (is_empty_array(*value)) return std::vector<double>{};
  if (const auto* held = std::get_if<std::vector<double>>(value)) return *held;
  std::vector<double> out;
  const auto widen = [&out](const auto& held) {
    out.reserve(held.size());
    for (const auto element : held) out.push_back(static_cast<double>(element));
    return out;
  };
  if (const auto* held = std::get_if<std::vector<uint64_t>>(value)) return widen(*held);
  if (const auto* held = std::get_if<std::vector<int64_t>>(value)) return widen(*held);
  wrong_type(*this, key, "an array of numbers");
}

std::optional<std::vector<bool>> Metadata::booleans(std::string_view key) const {
  const Value* value = find(*this, key);
  if (!value) return std::nullopt;
  if (is_empty_array(*value)) return std::vector<bool>{};
  if (const auto* held = std::get_if<std::vector<bool>>(value)) return *held;
  wrong_type(*this, key, "an array of booleans");
}

const TextList* Metadata::texts(std::string_view key) const {
  const Value* value = find(*this, key);
  if (!value) return nullptr;
  if (const auto* held = std::get_if<TextList>(value)) return held;
  if (is_empty_array(*value)) {
    static const TextList empty;
    return &empty;
  }
  wrong_type(*this, key, "an array of strings");
}

}  // namespace caravan
