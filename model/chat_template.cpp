#include "model/chat_template.h"

#include <utility>

#include "base/error.h"
#include "model/template_eval.h"
#include "model/template_input.h"
#include "model/template_parser.h"

namespace caravan {

struct ChatTemplate::State {
  std::string name;
  tmpl::Tree tree;
};

ChatTemplate::ChatTemplate(std::unique_ptr<const State> state) : state_(std::move(state)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

ChatTemplate ChatTemplate::parse(std::string_view source, std::string_view name) {
  auto state = std::make_unique<State>();
  state->name = name;
  try {
    state->tree = tmpl::parse_template(source);
  } catch (const Error& error) {
    fail(error.code(), "chat template {}, {}", name, error.message());
  }
  return ChatTemplate(std::move(state));
}

std::string ChatTemplate::render(std::string_view input_json, int64_t now_unix_seconds,
                                 const ChatTemplateLimits& limits) const {
  const std::shared_ptr<tmpl::Dict> input = tmpl::parse_input(input_json);
  tmpl::Meter meter({limits.steps, limits.output_bytes, limits.memory_bytes});
  tmpl::Interpreter interpreter(state_->tree, meter, now_unix_seconds);
  try {
    return interpreter.run(*input);
  } catch (const tmpl::RaisedByTemplate& raised) {
    throw Error(raised.code(), raised.message());
  } catch (const Error& error) {
    fail(error.code(), "chat template {}, line {}: {}", state_->name, interpreter.line(), error.message());
  }
}

}  // namespace caravan
