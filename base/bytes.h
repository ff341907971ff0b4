#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

namespace caravan {

// A number of bytes.
struct Bytes {
  uint64_t count = 0;
  auto operator<=>(const Bytes&) const = default;
  Bytes& operator+=(Bytes other) { return count += other.count, *this; }
  Bytes& operator-=(Bytes other) { return count -= other.count, *this; }
  friend Bytes operator+(Bytes a, Bytes b) { return a += b; }
  friend Bytes operator-(Bytes a, Bytes b) { return a -= b; }
};

// "1.5 GiB", with three significant digits.
std::string to_string(Bytes bytes);
// "2GiB", "512 MiB", "1e9", "2g" (binary). Throws kInvalidArgument.
Bytes parse_bytes(std::string_view text);
// A budget: a size, or a share of `whole` ("50%"). Throws kInvalidArgument, also for over 100%.
Bytes parse_budget(std::string_view text, Bytes whole);
// The same of a flag, which errors name.
Bytes parse_budget(std::string_view flag, std::string_view text, Bytes whole);

// a + b and a * b; false when the result does not fit (sizes from files and sockets).
[[nodiscard]] inline bool checked_add(uint64_t a, uint64_t b, uint64_t& sum) {
  return !__builtin_add_overflow(a, b, &sum);
}
[[nodiscard]] inline bool checked_multiply(uint64_t a, uint64_t b, uint64_t& product) {
  return !__builtin_mul_overflow(a, b, &product);
}

}  // namespace caravan
