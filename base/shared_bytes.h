#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace caravan {

// Bytes that several hold and nobody changes, in whatever memory they came in. Null: none.
class SharedBytes {
 public:
  SharedBytes() = default;
  SharedBytes(std::nullptr_t) {}
  SharedBytes(std::shared_ptr<const void> owner, std::span<const std::byte> bytes)
      : owner_(std::move(owner)), bytes_(bytes) {}
  template <class Vector>
  requires std::is_same_v<std::remove_const_t<Vector>, std::vector<std::byte>> SharedBytes(
      const std::shared_ptr<Vector>& bytes)
      : owner_(bytes), bytes_(bytes ? std::span<const std::byte>(*bytes) : std::span<const std::byte>()) {}

  explicit operator bool() const { return owner_ != nullptr; }
  const std::span<const std::byte>& operator*() const { return bytes_; }
  const std::span<const std::byte>* operator->() const { return &bytes_; }
  bool operator==(const SharedBytes& other) const {
    return bool(*this) == bool(other) && std::ranges::equal(bytes_, other.bytes_);
  }

 private:
  std::shared_ptr<const void> owner_;
  std::span<const std::byte> bytes_;
};

}  // namespace caravan
