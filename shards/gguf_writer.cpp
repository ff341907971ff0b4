#include "shards/gguf_writer.h"

#include <cstring>
#include <limits>
#include <type_traits>

#include "base/bytes.h"
#include "base/check.h"
#include "shards/gguf.h"

namespace caravan {

namespace {

constexpr uint32_t kVersion = 3;

class Header {
 public:
  template <class T>
  void put(T value) {
    const auto* bytes = reinterpret_cast<const std::byte*>(&value);
    bytes_.insert(bytes_.end(), bytes, bytes + sizeof value);
  }
  void put_type(GgufType type) { put(static_cast<uint32_t>(type)); }
  void put_text(std::string_view text) {
    put(uint64_t{text.size()});
    const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
    bytes_.insert(bytes_.end(), bytes, bytes + text.size());
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

GgufType type_for(bool) {
  return GgufType::kBool;
}
GgufType type_for(uint64_t value) {
  return value <= std::numeric_limits<uint32_t>::max() ? GgufType::kU32 : GgufType::kU64;
}
GgufType type_for(int64_t value) {
  return value == static_cast<int32_t>(value) ? GgufType::kI32 : GgufType::kI64;
}
GgufType type_for(double value) {
  return value != value || value == static_cast<double>(static_cast<float>(value)) ? GgufType::kF32
                                                                                   : GgufType::kF64;
}
GgufType type_for(std::string_view) {
  return GgufType::kString;
}

// The narrow type if it holds every element. (The number of a wide type is higher than its narrow twin's.)
template <class List>
GgufType type_for_all(const List& values) {
  using T = typename List::value_type;
  GgufType widest = type_for(T{});
  for (auto&& value : values) widest = std::max(widest, type_for(static_cast<const T&>(value)));
  return widest;
}

template <class T>
void put_value(Header& header, GgufType type, const T& value) {
  if constexpr (std::is_same_v<T, std::string> || std::is_same_v<T, std::string_view>) {
    header.put_text(value);
  } else {
    switch (type) {
      case GgufType::kBool:
        return header.put(static_cast<uint8_t>(value));
      case GgufType::kU32:
        return header.put(static_cast<uint32_t>(value));
      case GgufType::kI32:
        return header.put(static_cast<int32_t>(value));
      case GgufType::kF32:
        return header.put(static_cast<float>(value));
      default:
        return header.put(value);
    }
  }
}

template <class T>
void put_entry(Header& header, const T& value) {
  const GgufType type = type_for(value);
  header.put_type(type);
  put_value(header, type, value);
}

template <class List>
void put_list(Header& header, const List& values) {
  const GgufType type = type_for_all(values);
  header.put_type(GgufType::kArray);
  header.put_type(type);
  header.put(uint64_t{values.size()});
  for (auto&& value : values) put_value(header, type, static_cast<const typename List::value_type&>(value));
}

template <class T>
void put_entry(Header& header, const std::vector<T>& values) {
  put_list(header, values);
}
void put_entry(Header& header, const TextList& values) {
  put_list(header, values);
}

uint64_t rounded_up(uint64_t bytes, uint64_t alignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

}  // namespace

uint64_t GgufTensorPlan::bytes() const {
  CHECK(!dimensions.empty());
  uint64_t total = row_bytes(type, dimensions[0]);
  for (size_t i = 1; i < dimensions.size(); ++i) CHECK(checked_multiply(total, dimensions[i], total));
  return total;
}

GgufWriter::GgufWriter(const std::string& path, const Metadata& metadata, std::vector<GgufTensorPlan> tensors)
    : tensors_(std::move(tensors)),
      alignment_(metadata.integer("general.alignment").value_or(kGgufDefaultAlignment)),
      file_(path) {
  Header header;
  for (const char letter : {'G', 'G', 'U', 'F'}) header.put(letter);
  header.put(kVersion);
  header.put(uint64_t{tensors_.size()});
  header.put(uint64_t{metadata.values().size()});
  for (const auto& [key, value] : metadata.values()) {
    header.put_text(key);
    std::visit([&header](const auto& held) { put_entry(header, held); }, value);
  }
  uint64_t offset = 0;
  for (const GgufTensorPlan& tensor : tensors_) {
    header.put_text(tensor.name);
    header.put(static_cast<uint32_t>(tensor.dimensions.size()));
    for (const uint64_t size : tensor.dimensions) header.put(size);
    header.put(static_cast<uint32_t>(tensor.type));
    header.put(offset);
    offset = rounded_up(offset + tensor.bytes(), alignment_);
  }
  file_.append(header.bytes());
  pad();
}

void GgufWriter::append(std::span<const std::byte> bytes) {
  CHECK(tensor_ < tensors_.size());
  written_ += bytes.size();
  CHECK(written_ <= tensors_[tensor_].bytes());
  file_.append(bytes);
  if (written_ < tensors_[tensor_].bytes()) return;
  pad();
  written_ = 0;
  ++tensor_;
}

void GgufWriter::finish() {
  CHECK(tensor_ == tensors_.size());
  file_.commit();
}

void GgufWriter::pad() {
  const std::vector<std::byte> zeros(rounded_up(file_.bytes(), alignment_) - file_.bytes());
  file_.append(zeros);
}

}  // namespace caravan
