#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "model/tokenizer.h"
#include "model/tokenizer_json.h"

// Any bytes as a tokenizer.json, followed by a line of four dashes and a text: an error or a tokenizer whose
// ids are in its vocabulary, whatever the text.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view input(reinterpret_cast<const char*>(data), size);
  constexpr std::string_view kBorder = "\n----\n";
  const size_t border = input.find(kBorder);
  std::string_view text = "Once upon\n  a time, 12345 \xF0\x9F\xA6\x99 <s>'LL";
  if (border != std::string_view::npos) {
    text = input.substr(border + kBorder.size());
    input = input.substr(0, border);
  }
  try {
    const caravan::Tokenizer tokenizer(caravan::read_tokenizer_json(input, "", "fuzz"));
    for (const bool special : {false, true}) {
      const auto ids = tokenizer.encode(text.substr(0, 200), {.bos = true, .special = special});
      for (const caravan::TokenId id : ids) {
        if (id >= tokenizer.size()) __builtin_trap();
      }
      tokenizer.decode(ids, special);
      caravan::StreamDecoder stream(tokenizer);
      for (const caravan::TokenId id : ids) stream.add(id);
      stream.finish();
    }
  } catch (const caravan::Error&) {
  }
  return 0;
}
