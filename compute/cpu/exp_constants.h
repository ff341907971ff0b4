#pragma once

// The numbers of our own exp, shared by compute/math.cpp and the vector kernels. Macros and inline functions
// are kept out: this header is compiled for several instruction sets.
namespace caravan::exp_constants {

// Below the first the result is 0, above the second it is infinite; both follow from the arithmetic.
inline constexpr float kLowest = -104.0f;
inline constexpr float kHighest = 89.0f;
inline constexpr float kLog2E = 0x1.715476p+0f;
// ln 2 as the sum of two f32.
inline constexpr float kLn2High = 0x1.62e430p-1f;
inline constexpr float kLn2Low = -0x1.05c610p-29f;
// Taylor's series of e^r, highest power first; on |r| <= ln(2)/2 it is off by at most 5.2e-9 relative.
inline constexpr float kSeries[8] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24,
                                     1.0f / 6,    0.5f,       1.0f,       1.0f};

}  // namespace caravan::exp_constants
