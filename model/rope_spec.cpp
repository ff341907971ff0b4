#include "model/rope_spec.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "compute/rope.h"

namespace caravan {

namespace {

struct RopeFacts {
  double theta = 10000;
  uint64_t width = 0;
  RopeScaling scaling;
};

RopeScalingKind scaling_kind(const Manifest& manifest, const std::string& type) {
  if (type.empty() || type == "none" || type == "default") return RopeScalingKind::kNone;
  if (type == "linear") return RopeScalingKind::kLinear;
  if (type == "llama3") return RopeScalingKind::kLlama3;
  if (type == "yarn") return RopeScalingKind::kYarn;
  fail(ErrorCode::kUnsupported, "{}: rope scaling \"{}\" is not known; known are linear, llama3, yarn",
       manifest.path, type);
}

std::optional<float> optional_float(std::optional<double> value) {
  return value ? std::optional<float>(static_cast<float>(*value)) : std::nullopt;
}

RopeFacts read_gguf(const Manifest& manifest, uint32_t head_width, uint32_t context) {
  const Metadata& metadata = manifest.metadata;
  const std::string prefix = manifest.architecture + ".rope.";
  const auto number = [&](const char* key) { return metadata.number(prefix + key); };
  RopeFacts facts;
  facts.theta = number("freq_base").value_or(10000);
  facts.width = metadata.integer(prefix + "dimension_count").value_or(head_width);
  RopeScaling& scaling = facts.scaling;
  scaling.kind = scaling_kind(manifest, metadata.text(prefix + "scaling.type").value_or("none"));
  scaling.factor = static_cast<float>(number("scaling.factor").value_or(number("scale_linear").value_or(1)));
  if (scaling.kind == RopeScalingKind::kNone && number("scale_linear") && scaling.factor != 1)
    scaling.kind = RopeScalingKind::kLinear;
  scaling.original_context = static_cast<float>(number("scaling.original_context_length").value_or(context));
  scaling.beta_fast = static_cast<float>(number("scaling.yarn_beta_fast").value_or(32));
  scaling.beta_slow = static_cast<float>(number("scaling.yarn_beta_slow").value_or(1));
  // GGUF's attn_factor multiplies the default magnitude instead of replacing it.
  if (const auto extra = number("scaling.attn_factor"); extra && scaling.kind == RopeScalingKind::kYarn)
    scaling.attention_factor = static_cast<float>(*extra) * rope_magnitude(scaling);
  return facts;
}

RopeFacts read_hugging_face(const Manifest& manifest, uint32_t head_width, uint32_t context) {
  const Metadata& metadata = manifest.metadata;
  const bool fresh = metadata.has("rope_parameters.rope_theta") || metadata.has("rope_parameters.rope_type");
  const std::string prefix = fresh ? "rope_parameters." : "rope_scaling.";
  const std::string_view nested = "rope_parameters.";
  for (auto it = metadata.values().lower_bound(nested);
       it != metadata.values().end() && it->first.starts_with(nested); ++it)
    if (it->first.find('.', nested.size()) != std::string::npos)
      fail(ErrorCode::kUnsupported, "{}: rope parameters by kind of layer ({}) are not supported",
           manifest.path, it->first);
  const auto number = [&](const char* key) { return metadata.number(prefix + key); };
  RopeFacts facts;
  facts.theta = number("rope_theta").value_or(metadata.number("rope_theta").value_or(10000));
  const double part =
      number("partial_rotary_factor").value_or(metadata.number("partial_rotary_factor").value_or(1));
  if (!(part > 0 && part <= 1))
    fail(ErrorCode::kMalformed, "{}: partial_rotary_factor {} is not in (0, 1]", manifest.path, part);
  facts.width = static_cast<uint64_t>(head_width * part);
  RopeScaling& scaling = facts.scaling;
  scaling.kind = scaling_kind(
      manifest,
      metadata.text(prefix + "rope_type").value_or(metadata.text(prefix + "type").value_or("default")));
  const auto original = number("original_max_position_embeddings");
  scaling.original_context = static_cast<float>(original.value_or(context));
  scaling.factor = static_cast<float>(number("factor").value_or(original ? context / *original : 1));
  scaling.low_frequency_factor = static_cast<float>(number("low_freq_factor").value_or(1));
  scaling.high_frequency_factor = static_cast<float>(number("high_freq_factor").value_or(4));
  scaling.beta_fast = static_cast<float>(number("beta_fast").value_or(32));
  scaling.beta_slow = static_cast<float>(number("beta_slow").value_or(1));
  scaling.truncate = metadata.boolean(prefix + "truncate").value_or(true);
  scaling.attention_factor = optional_float(number("attention_factor"));
  scaling.mscale = optional_float(number("mscale"));
  scaling.mscale_all_dim = optional_float(number("mscale_all_dim"));
  return facts;
}

// GGUF's rope_freqs: one divisor a frequency.
std::vector<float> read_divisors(const Manifest& manifest, uint64_t count) {
  const WeightGroup* group = manifest.find({GroupId::Kind::kEmbed, 0, 0});
  const Tensor* tensor = group ? group->find(Role::kRopeFactors) : nullptr;
  if (!tensor) return {};
  if (tensor->columns != count || tensor->rows != 1)
    fail(ErrorCode::kMalformed, "{}: tensor {} has {} x {} values for {} frequencies", manifest.path,
         tensor->name, tensor->rows, tensor->columns, count);
  // Of a header alone, nothing is computed: the divisors shape no size and no cost.
  if (!manifest.source) return {};
  std::vector<std::byte> bytes(tensor->extent.length);
  manifest.source->read(tensor->extent.file, tensor->extent.offset, bytes);
  std::vector<float> divisors(count);
  dequantize(tensor->type, bytes, divisors);
  return divisors;
}

}  // namespace

RopeSpec read_rope(const Manifest& manifest, uint32_t head_width, uint32_t context) {
  const RopeFacts facts = manifest.origin == Manifest::Origin::kGguf
                              ? read_gguf(manifest, head_width, context)
                              : read_hugging_face(manifest, head_width, context);
  if (facts.width == 0 || facts.width % 2 != 0 || facts.width > head_width)
    fail(ErrorCode::kMalformed, "{}: {} elements of a head of {} cannot turn in pairs", manifest.path,
         facts.width, head_width);
  if (!(facts.theta > 0))
    fail(ErrorCode::kMalformed, "{}: the rope base {} is not positive", manifest.path, facts.theta);
  RopeSpec spec;
  spec.width = static_cast<uint32_t>(facts.width);
  try {
    spec.inverse_frequencies = rope_frequencies(facts.theta, spec.width, facts.scaling);
    spec.magnitude = rope_magnitude(facts.scaling);
    const std::vector<float> divisors = read_divisors(manifest, spec.width / 2);
    if (!divisors.empty()) divide_frequencies(spec.inverse_frequencies, divisors);
    const auto finite = [](float value) { return std::isfinite(value); };
    if (!finite(spec.magnitude) ||
        !std::all_of(spec.inverse_frequencies.begin(), spec.inverse_frequencies.end(), finite))
      fail(ErrorCode::kMalformed, "the base and scaling of the rope give no numbers to compute with");
  } catch (const Error& error) {
    fail(ErrorCode::kMalformed, "{}: {}", manifest.path, error.message());
  }
  return spec;
}

}  // namespace caravan
