#pragma once

#include <sstream>
#include <string>

// CHECK(a == b): a bug ends the process, in release too, with both values printed. For bad input use fail()
// of base/error.h; for the expected life of a swarm use a value.
namespace caravan::check_detail {

[[noreturn]] void check_failed(const char* file, int line, const char* expression, const std::string& values);

template <class T>
void print(std::ostream& out, const T& value) {
  if constexpr (requires { out << value; }) {
    out << value;
  } else {
    out << "(unprintable)";
  }
}

template <class L, class R>
struct Comparison {
  bool ok;
  const L& left;
  const R& right;
  explicit operator bool() const { return ok; }
  std::string values() const {
    std::ostringstream out;
    print(out, left);
    out << " against ";
    print(out, right);
    return out.str();
  }
};

template <class L>
struct Operand {
  const L& left;
  explicit operator bool() const { return static_cast<bool>(left); }
  std::string values() const {
    std::ostringstream out;
    print(out, left);
    return out.str();
  }
  template <class R>
  Comparison<L, R> operator==(const R& right) const {
    return {left == right, left, right};
  }
  template <class R>
  Comparison<L, R> operator!=(const R& right) const {
    return {left != right, left, right};
  }
  template <class R>
  Comparison<L, R> operator<(const R& right) const {
    return {left < right, left, right};
  }
  template <class R>
  Comparison<L, R> operator<=(const R& right) const {
    return {left <= right, left, right};
  }
  template <class R>
  Comparison<L, R> operator>(const R& right) const {
    return {left > right, left, right};
  }
  template <class R>
  Comparison<L, R> operator>=(const R& right) const {
    return {left >= right, left, right};
  }
};

struct Decomposer {
  template <class L>
  Operand<L> operator<<(const L& left) const {
    return {left};
  }
};

}  // namespace caravan::check_detail

#define CHECK(...)                                                                                    \
  do {                                                                                                \
    if (auto check_result = (::caravan::check_detail::Decomposer{} << __VA_ARGS__); !check_result)    \
      ::caravan::check_detail::check_failed(__FILE__, __LINE__, #__VA_ARGS__, check_result.values()); \
  } while (false)
