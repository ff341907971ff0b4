#include <fmt/core.h>

#include <cstdio>

#include "base/clock.h"
#include "base/error.h"
#include "base/progress.h"
#include "bench/generate.h"

// caravan-generate SHAPE TYPE OUT.gguf: a model of noise, for measuring.
int main(int argc, char** argv) {
  using namespace caravan;
  const auto shape = argc == 4 ? model_shape(argv[1]) : std::nullopt;
  const auto type = argc == 4 ? tensor_type_from_name(argv[2]) : std::nullopt;
  if (!shape || !type) {
    std::string names;
    for (const std::string_view name : model_shape_names())
      names += (names.empty() ? "" : " | ") + std::string(name);
    fmt::print(stderr,
               "usage: caravan-generate SHAPE TYPE OUT.gguf\n  SHAPE {}\n  TYPE  q4_0, q8_0, q4_k, f16 ...\n",
               names);
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
