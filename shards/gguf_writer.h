#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "compute/format.h"
#include "shards/metadata.h"

namespace caravan {

// A tensor to be written: as GgufTensor, before it has a place.
struct GgufTensorPlan {
  std::string name;
  TensorType type{};
  std::vector<uint64_t> dimensions;  // the fastest first; the first a multiple of the type's block
  uint64_t bytes() const;
};

// Writes a GGUF v3 file tensor by tensor; it appears under its name when finish() returns, or not at all.
// Integers are written as u32 or i32 where they fit, else in 64 bits; numbers as f32 where that is exact.
// One thread. Throws kIo.
class GgufWriter {
 public:
  // Writes the header. `general.alignment` is honoured where it is set.
  GgufWriter(const std::string& path, const Metadata& metadata, std::vector<GgufTensorPlan> tensors);
  // The bytes of the tensors in the order of the plan, in pieces of any size; a piece does not cross from one
  // tensor into the next.
  void append(std::span<const std::byte> bytes);
  // Every byte of every tensor must be there.
  void finish();

 private:
  void pad();

  const std::vector<GgufTensorPlan> tensors_;
  uint64_t alignment_;
  AtomicFile file_;
  size_t tensor_ = 0;     // the one being written
  uint64_t written_ = 0;  // of its bytes
};

}  // namespace caravan
