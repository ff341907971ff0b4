#pragma once

// Functions whose bits do not depend on the processor or its C library (law 3): plain arithmetic and fma,
// each rounded as IEEE says. Any thread.
namespace caravan {

// Within 1.5 units in the last place, subnormal results included; the vector kernels give the same bits.
float exp_f32(float x);

// Within 4e-16 relative for every normal result, absolute for sine and cosine up to |x| = 2^26.
double exp_f64(double x);
double log_f64(double x);  // of a positive normal number
double sin_f64(double x);
double cos_f64(double x);
// base > 0; error grows with |exponent * log(base)|, 1e-14 relative within the range of f32.
double pow_f64(double base, double exponent);

}  // namespace caravan
