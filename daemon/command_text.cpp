// tokenize and template.
#include <cstdio>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/error.h"
#include "base/limits.h"
#include "daemon/commands.h"
#include "daemon/model_library.h"
#include "daemon/model_text.h"
#include "daemon/standard_output.h"

namespace caravan {

namespace {

void write_out(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
}

// "-" reads standard input, so that any bytes can be given.
std::string text_or_input(const std::string& text) {
  if (text != "-") return text;
  return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
}

}  // namespace

int command_tokenize(const CommandLine& line) {
  const Manifest manifest = open_model(line.model, line.config);
  const ModelText text = read_model_text(manifest);
  const Tokenizer& tokenizer = text.need_tokenizer();
  if (line.decode) {
    if (line.text_given) fail(ErrorCode::kInvalidArgument, "give a text or --decode, not both");
    for (TokenId id : *line.decode)
      if (id >= tokenizer.size())
        fail(ErrorCode::kInvalidArgument, "token {} is not among the {} of the vocabulary", id,
             tokenizer.size());
    const std::string decoded = tokenizer.decode(*line.decode, line.special);
    if (line.json)
      write_out(
          nlohmann::json{{"text", decoded}}.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) +
          "\n");
    else
      // For scripts the bytes as they are; at a terminal the prompt begins a line.
      write_out(decoded + (standard_output_is_terminal() ? "\n" : ""));
    return 0;
  }
  if (!line.text_given)
    fail(ErrorCode::kInvalidArgument,
         "nothing to tokenize; give a text, - for standard input, or --decode 1,2,3 to go back");
  const std::vector<TokenId> ids =
      tokenizer.encode(text_or_input(line.input), {.bos = line.bos, .special = line.special});
  if (line.json) {
    write_out(nlohmann::json{{"ids", ids}}.dump() + "\n");
    return 0;
  }
  for (TokenId id : ids) {
    const nlohmann::json piece = std::string(tokenizer.piece(id, true));
    write_out(std::to_string(id) + "\t" +
              piece.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  }
  return 0;
}

int command_template(const CommandLine& line) {
  try {
    const std::string source = read_text_file(line.model, limits::kMaxTemplateBytes);
    const std::string input =
        line.input == "-" ? text_or_input("-") : read_text_file(line.input, limits::kMaxJsonBytes);
    write_out(ChatTemplate::parse(source, line.model)
                  .render(input, line.now.value_or(SystemClock().unix_seconds())));
  } catch (const Error& error) {
    // The command line was right; whatever the files hold or raise is a failure.
    if (error.code() != ErrorCode::kInvalidArgument) throw;
    throw Error(ErrorCode::kMalformed, error.message());
  }
  return 0;
}

}  // namespace caravan
