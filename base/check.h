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

// Values are printed at once, while the temporaries of the expression still live.
struct Result {
  bool ok;
  std::string values;
};

template <class T>
std::string printed(const T& value) {
  std::ostringstream out;
  print(out, value);
  return out.str();
}

template <class L>
struct Operand {
  const L& left;
  operator Result() const {
    const bool ok = static_cast<bool>(left);
    return {ok, ok ? std::string() : printed(left)};
  }
  template <class R>
  Result judge(bool ok, const R& right) const {
    return {ok, ok ? std::string() : printed(left) + " against " + printed(right)};
  }
  template <class R>
  Result operator==(const R& right) const {
    return judge(left == right, right);
  }
  template <class R>
  Result operator!=(const R& right) const {
    return judge(left != right, right);
  }
  template <class R>
  Result operator<(const R& right) const {
    return judge(left < right, right);
  }
  template <class R>
  Result operator<=(const R& right) const {
    return judge(left <= right, right);
  }
  template <class R>
  Result operator>(const R& right) const {
    return judge(left > right, right);
  }
  template <class R>
  Result operator>=(const R& right) const {
    return judge(left >= right, right);
  }
};

struct Decomposer {
  template <class L>
  Operand<L> operator<<(const L& left) const {
    return {left};
  }
};

}  // namespace caravan::check_detail

#define CHECK(...)                                                                                  \
  do {                                                                                              \
    if (const ::caravan::check_detail::Result check_result = ::caravan::check_detail::Decomposer{}  \
                                                             << __VA_ARGS__;                        \
        !check_result.ok)                                                                           \
      ::caravan::check_detail::check_failed(__FILE__, __LINE__, #__VA_ARGS__, check_result.values); \
  } while (false)
