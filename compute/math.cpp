#include "compute/math.h"

#include <bit>
#include <cmath>
#include <cstdint>

#include "compute/cpu/exp_constants.h"

namespace caravan {
namespace {

constexpr double kPi = 0x1.921fb54442d18p+1;
constexpr double kLn2High = 0x1.62e42fefa3800p-1;  // 43 bits, so that a multiple below 2^10 is exact
constexpr double kLn2Low = 0x1.ef35793c76730p-45;
constexpr double kHalfPiHigh = 0x1.921fb54442d18p+0;
constexpr double kHalfPiLow = 0x1.1a62633145c07p-54;

// 2^n, -126 <= n <= 127.
float power_of_two(float n) {
  return std::bit_cast<float>((static_cast<uint32_t>(static_cast<int32_t>(n)) + 127u) << 23);
}

// Taylor's series on |x| <= pi / 4, in powers of x^2.
double sine_series(double x) {
  const double y = x * x;
  double sum = 0;
  for (int k = 19; k >= 3; k -= 2) sum = (sum + (k % 4 == 1 ? 1.0 : -1.0)) * y / ((k - 1) * k);
  return std::fma(x, sum, x);
}

double cosine_series(double x) {
  const double y = x * x;
  double sum = 0;
  for (int k = 20; k >= 2; k -= 2) sum = (sum + (k % 4 == 0 ? 1.0 : -1.0)) * y / ((k - 1) * k);
  return 1.0 + sum;
}

struct Reduced {
  double x;  // within pi / 4
  int64_t quarter;
};

Reduced reduce(double x) {
  const double n = std::rint(x * (2 / kPi));
  const double high = std::fma(-n, kHalfPiHigh, x);
  return {std::fma(-n, kHalfPiLow, high), static_cast<int64_t>(n)};
}

}  // namespace

float exp_f32(float x) {
  namespace c = exp_constants;
  if (x != x) return x;
  const float clamped = x < c::kLowest ? c::kLowest : x > c::kHighest ? c::kHighest : x;
  const float n = std::rint(clamped * c::kLog2E);
  const float r = std::fma(n, -c::kLn2Low, std::fma(n, -c::kLn2High, clamped));
  float p = c::kSeries[0];
  for (int i = 1; i < 8; ++i) p = std::fma(p, r, c::kSeries[i]);
  const float half = std::rint(n * 0.5f);
  return p * power_of_two(half) * power_of_two(n - half);
}

double exp_f64(double x) {
  if (x != x) return x;
  if (x > 709.0) return HUGE_VAL;
  if (x < -708.0) return 0.0;
  const double n = std::rint(x * 0x1.71547652b82fep+0);
  const double r = std::fma(-n, kLn2Low, std::fma(-n, kLn2High, x));
  double sum = 0;
  for (int k = 14; k >= 1; --k) sum = (sum + 1.0) * r / k;
  return std::ldexp(1.0 + sum, static_cast<int>(n));
}

// log(m 2^n) = n log 2 + 2 atanh((m - 1) / (m + 1)), m around 1.
double log_f64(double x) {
  int exponent = 0;
  double m = std::frexp(x, &exponent);
  if (m < 0x1.6a09e667f3bcdp-1) {
    m *= 2;
    --exponent;
  }
  const double s = (m - 1) / (m + 1), y = s * s;
  double sum = 0;
  for (int k = 23; k >= 3; k -= 2) sum = (sum + 1.0 / k) * y;
  const double small = std::fma(2 * s, sum, 2 * s);
  return std::fma(exponent, kLn2High, std::fma(exponent, kLn2Low, small));
}

double sin_f64(double x) {
  const Reduced r = reduce(x);
  switch (r.quarter & 3) {
    case 0:
      return sine_series(r.x);
    case 1:
      return cosine_series(r.x);
    case 2:
      return -sine_series(r.x);
    default:
      return -cosine_series(r.x);
  }
}

double cos_f64(double x) {
  const Reduced r = reduce(x);
  switch (r.quarter & 3) {
    case 0:
      return cosine_series(r.x);
    case 1:
      return -sine_series(r.x);
    case 2:
      return -cosine_series(r.x);
    default:
      return sine_series(r.x);
  }
}

double pow_f64(double base, double exponent) {
  return exp_f64(exponent * log_f64(base));
}

}  // namespace caravan
