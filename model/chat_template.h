#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/limits.h"

namespace caravan {

// What one rendering may use; the defaults suit every real template.
struct ChatTemplateLimits {
  uint64_t steps = limits::kMaxTemplateSteps;
  size_t output_bytes = limits::kMaxTemplateOutputBytes;
  size_t memory_bytes = limits::kMaxTemplateMemoryBytes;
};

// A model's chat template in the Jinja language, as Hugging Face runs it: trim_blocks and lstrip_blocks,
// `break` and `continue`, the `generation` tag, lists and dictionaries that cannot be changed, `tojson`,
// `raise_exception` and `strftime_now`. Parsed once and constant; any thread may render.
class ChatTemplate {
 public:
  // `name` is for messages, such as the model's path. Throws kMalformed for what Jinja refuses, kUnsupported
  // for what only this engine lacks, kLimit; the message names the line.
  static ChatTemplate parse(std::string_view source, std::string_view name);

  // `input_json` is a JSON object whose entries are the template's variables: messages, tools,
  // add_generation_prompt, bos_token and so on; what is absent is undefined. `strftime_now` gives the time
  // given, in UTC. Throws kInvalidArgument with the template's own words where it calls raise_exception, and
  // naming template and line where Jinja raises an error; kMalformed for bad JSON; kUnsupported; kLimit.
  std::string render(std::string_view input_json, int64_t now_unix_seconds,
                     const ChatTemplateLimits& limits = {}) const;

  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

 private:
  struct State;
  explicit ChatTemplate(std::unique_ptr<const State> state);
  std::unique_ptr<const State> state_;
};

}  // namespace caravan
