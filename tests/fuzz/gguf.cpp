#include <cstddef>
#include <cstdint>
#include <span>

#include "base/error.h"
#include "shards/gguf.h"

// Any bytes give a header whose tensors lie inside the file, or an Error.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    const caravan::GgufFile file = caravan::read_gguf(bytes, "fuzz");
    for (const caravan::GgufTensor& tensor : file.tensors)
      if (tensor.offset > size || tensor.bytes > size - tensor.offset) __builtin_trap();
  } catch (const caravan::Error&) {
  }
  return 0;
}
