#include <fmt/core.h>

#include <cstdio>
#include <cstdlib>

#include "base/clock.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/progress.h"
#include "bench/generate.h"

// caravan-generate SHAPE TYPE OUT.gguf [VOCABULARY]: a model of noise, for measuring.
int main(int argc, char** argv) {
  using namespace caravan;
  const bool is_call = argc == 4 || argc == 5;
  auto shape = is_call ? model_shape(argv[1]) : std::nullopt;
  const auto type = is_call ? tensor_type_from_name(argv[2]) : std::nullopt;
  if (shape && argc == 5) shape->vocabulary = static_cast<uint32_t>(std::strtoul(argv[4], nullptr, 10));
  const bool is_vocabulary =
      shape && shape->vocabulary >= kLeastGeneratedVocabulary && shape->vocabulary <= limits::kMaxVocabulary;
  if (!is_vocabulary || !type) {
    std::string names;
    for (const std::string_view name : model_shape_names())
      names += (names.empty() ? "" : " | ") + std::string(name);
    fmt::print(
        stderr,
        "usage: caravan-generate SHAPE TYPE OUT.gguf [VOCABULARY]\n  SHAPE {}\n  TYPE  q4_0, q8_0, q4_k, f16 "
        "...\n  VOCABULARY  another number of tokens than the shape's, {} to {}\n",
        names, kLeastGeneratedVocabulary, limits::kMaxVocabulary);
    return 2;
  }
  try {
    const SystemClock clock;
    Progress progress(clock, "generate", Progress::Unit::kBytes, generated_bytes(*shape, *type),
                      standard_error_is_terminal(), standard_error());
    generate_model(*shape, *type, 1, argv[3], [&progress](uint64_t bytes) { progress.advance(bytes); });
    progress.finish();
  } catch (const Error& error) {
    fmt::print(stderr, "caravan-generate: {}\n", error.message());
    return 1;
  }
  return 0;
}
