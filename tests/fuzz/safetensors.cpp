#include "shards/safetensors.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/error.h"
#include "shards/json_metadata.h"

namespace {

template <class Body>
void allow_errors(Body body) {
  try {
    body();
  } catch (const caravan::Error&) {
  }
}

}  // namespace

// Any bytes give entries inside the file or an Error; the same bytes are also tried as a header with its
// length before it, as an index and as a config.json.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto check = [](std::span<const std::byte> file) {
    for (const caravan::SafetensorsEntry& entry : caravan::read_safetensors(file, "fuzz"))
      if (entry.offset > file.size() || entry.bytes > file.size() - entry.offset) __builtin_trap();
  };
  allow_errors([&] { check(bytes); });
  std::vector<std::byte> framed(sizeof(uint64_t) + size + 64);
  const uint64_t header = size;
  for (size_t i = 0; i < sizeof header; ++i) framed[i] = static_cast<std::byte>(header >> (8 * i) & 0xff);
  std::copy(bytes.begin(), bytes.end(), framed.begin() + sizeof header);
  allow_errors([&] { check(framed); });
  allow_errors([&] { caravan::read_safetensors_index(text, "fuzz"); });
  allow_errors([&] { caravan::flatten_json(text, "fuzz"); });
  return 0;
}
