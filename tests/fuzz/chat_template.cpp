#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "model/chat_template.h"

// Any bytes as a template, rendered with a small conversation; the limits keep each input quick.
namespace {

constexpr std::string_view kInput = R"({
  "messages": [{"role": "system", "content": "Be terse."}, {"role": "user", "content": " Hé <b>&'\" "},
               {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "function":
                 {"name": "f", "arguments": {"x": 1, "y": [true, null, 1.5]}}}]},
               {"role": "user", "content": [{"type": "text", "text": "a\nb"}, {"type": "image"}]}],
  "tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"x": {"type": "integer"}}}}}],
  "add_generation_prompt": true, "bos_token": "<s>", "eos_token": "</s>",
  "x": 12345678901234567890123, "n": -3, "f": 2.5, "list": [3, 1, 2], "d": {"b": 1, "a": [2]}
})";

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  caravan::ChatTemplateLimits limits;
  limits.steps = 20'000;
  limits.output_bytes = 1 << 16;
  limits.memory_bytes = 1 << 20;
  try {
    const std::string_view source(reinterpret_cast<const char*>(data), size);
    const caravan::ChatTemplate chat = caravan::ChatTemplate::parse(source, "fuzz");
    chat.render(kInput, 1'795'348'800, limits);
  } catch (const caravan::Error&) {
  }
  return 0;
}
