#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/error.h"
#include "base/hash.h"
#include "base/ids.h"

// How the shard store writes its records: little-endian numbers, texts behind their lengths, and an XXH3 over
// all at the end. Inside shards/.
namespace caravan {

class RecordWriter {
 public:
  explicit RecordWriter(std::string_view kind) { text(kind); }
  template <class Number>
  void number(Number value) {
    static_assert(std::is_arithmetic_v<Number>);
    raw(&value, sizeof value);
  }
  void text(std::string_view value) {
    number(uint64_t{value.size()});
    raw(value.data(), value.size());
  }
  void hash(const Hash256& value) { raw(value.bytes.data(), value.size()); }
  std::string finish() {
    number(xxh3(std::as_bytes(std::span(bytes_))));
    return std::move(bytes_);
  }

 private:
  void raw(const void* data, size_t count) { bytes_.append(static_cast<const char*>(data), count); }
  std::string bytes_;
};

// Reads what RecordWriter wrote. Every read is checked against what is left.
class RecordReader {
 public:
  // Throws kMalformed when the sum at the end does not fit or the kind is another one.
  RecordReader(std::string_view bytes, std::string_view kind, std::string_view where) : where_(where) {
    if (bytes.size() < sizeof(uint64_t)) refuse("it is too short");
    left_ = bytes.substr(bytes.size() - sizeof(uint64_t));
    const auto sum = number<uint64_t>();
    left_ = bytes.substr(0, bytes.size() - sizeof(uint64_t));
    if (sum != xxh3(std::as_bytes(std::span(left_)))) refuse("its checksum is wrong");
    if (text(kind.size()) != kind) refuse("it is of another kind or version");
  }

  template <class Number>
  Number number() {
    static_assert(std::is_arithmetic_v<Number> && !std::is_same_v<Number, bool>);
    Number value;
    std::memcpy(&value, raw(sizeof value).data(), sizeof value);
    return value;
  }
  bool flag() {
    const auto value = number<uint8_t>();
    if (value > 1) refuse("a yes or no is neither");
    return value == 1;
  }
  std::string text(uint64_t most_bytes) { return std::string(view(most_bytes)); }
  // The same inside the record.
  std::string_view view(uint64_t most_bytes) {
    const auto size = number<uint64_t>();
    if (size > most_bytes) refuse_size(size, most_bytes);
    return raw(size);
  }
  Hash256 hash() {
    Hash256 value;
    std::memcpy(value.bytes.data(), raw(value.size()).data(), value.size());
    return value;
  }
  // How many elements of at least `least_bytes` each follow.
  uint64_t count(uint64_t most, uint64_t least_bytes) {
    const auto value = number<uint64_t>();
    if (value > most) refuse_size(value, most);
    if (value > left_.size() / least_bytes) refuse("it ends early");
    return value;
  }
  void end() const {
    if (!left_.empty()) refuse("it goes on past its end");
  }
  [[noreturn]] void refuse(std::string_view why) const {
    fail(ErrorCode::kMalformed, "{}: the record is damaged: {}", where_, why);
  }

 private:
  [[noreturn]] void refuse_size(uint64_t size, uint64_t most) const {
    fail(ErrorCode::kLimit, "{}: the record has a size of {} where {} is the most", where_, size, most);
  }
  std::string_view raw(uint64_t count) {
    if (count > left_.size()) refuse("it ends early");
    const std::string_view found = left_.substr(0, count);
    left_.remove_prefix(count);
    return found;
  }

  const std::string where_;
  std::string_view left_;
};

}  // namespace caravan
