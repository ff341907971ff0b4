#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compute/format.h"
#include "shards/metadata.h"

namespace caravan {

struct GgufTensor {
  std::string name;
  TensorType type{};
  // The fastest first: columns, rows, then (of fused experts) matrices. Never 0.
  std::vector<uint64_t> dimensions;
  uint64_t offset = 0;  // in the file
  uint64_t bytes = 0;
};

struct GgufFile {
  uint32_t version = 0;
  Metadata metadata;
  std::vector<GgufTensor> tensors;  // in the file's order; none in a vocabulary-only file
};

// GGUF's numbers of metadata types.
enum class GgufType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64,
};

inline constexpr uint64_t kGgufDefaultAlignment = 32;

// What must be there of a file: the tensors' bytes, too, or the header alone (for who reads no tensor).
enum class GgufPart : uint8_t { kWhole, kHeader };

// Reads the header of a GGUF file (versions 2 and 3, little-endian) whose bytes are `file`; of the tensors'
// own bytes only the place is checked. Nested arrays become keys of their own, "key.0", "key.1". Allocates no
// more than a small multiple of the header's bytes. Throws kMalformed, kUnsupported, kLimit naming `name`,
// the key or tensor, and the reason.
GgufFile read_gguf(std::span<const std::byte> file, std::string_view name, GgufPart part = GgufPart::kWhole);

}  // namespace caravan
