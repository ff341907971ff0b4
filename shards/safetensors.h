#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compute/format.h"

namespace caravan {

struct SafetensorsEntry {
  std::string name;
  std::string dtype;               // the file's word, "BF16"
  std::optional<TensorType> type;  // of F32, F16 and BF16
  std::vector<uint64_t> shape;     // the slowest first
  uint64_t offset = 0;             // in the file
  uint64_t bytes = 0;
};

// Reads the header of a safetensors file whose bytes are `file`: every entry lies inside it, has the size
// that its shape and dtype give, and overlaps no other. Throws kMalformed, kLimit naming `name`, tensor and
// reason.
std::vector<SafetensorsEntry> read_safetensors(std::span<const std::byte> file, std::string_view name);

// Tensor name to file name, of a model.safetensors.index.json. A file name is that of a file in the same
// folder: one that leads elsewhere is refused.
std::map<std::string, std::string> read_safetensors_index(std::string_view json, std::string_view name);

}  // namespace caravan
