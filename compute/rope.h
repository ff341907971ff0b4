#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace caravan {

// Rotary positions: pair i of the first `width` elements of a head turns by position * frequency[i].
// Frequencies are f32, as Hugging Face transformers compute them. Same bits on every machine. Any thread.

enum class RopeScalingKind : uint8_t { kNone, kLinear, kLlama3, kYarn };

struct RopeScaling {
  RopeScalingKind kind = RopeScalingKind::kNone;
  float factor = 1;            // how many times longer the context becomes
  float original_context = 0;  // positions before the scaling (llama3, yarn)
  // llama3: wavelengths above original_context / low_frequency_factor are stretched by `factor`, those below
  // original_context / high_frequency_factor are kept.
  float low_frequency_factor = 1;
  float high_frequency_factor = 4;
  // yarn: frequencies with more turns than beta_fast in the original context are kept, below beta_slow
  // stretched.
  float beta_fast = 32;
  float beta_slow = 1;
  bool truncate = true;  // the ends of the ramp to whole frequencies
  std::optional<float> attention_factor = std::nullopt;
  std::optional<float> mscale = std::nullopt;
  std::optional<float> mscale_all_dim = std::nullopt;
};

// theta^(-2 i / width), [width / 2]; width is even, theta > 0.
std::vector<float> rope_frequencies(double theta, uint32_t width);
// The same with a scaling. Throws kInvalidArgument for numbers no scaling can have (a factor of 0, no
// original context where one is needed).
std::vector<float> rope_frequencies(double theta, uint32_t width, const RopeScaling& scaling);
// GGUF's rope_freqs: each frequency is divided by its own number. Throws kInvalidArgument when sizes differ
// or a divisor is not positive.
void divide_frequencies(std::span<float> frequencies, std::span<const float> divisors);
// What cosines and sines are multiplied with: yarn's attention factor, else 1.
float rope_magnitude(const RopeScaling& scaling);
// [positions][frequencies] pairs (cos, sin), times magnitude. The angle is rounded to f32, as the models were
// trained.
std::vector<float> rope_pairs(std::span<const float> frequencies, float magnitude, uint32_t positions);

}  // namespace caravan
