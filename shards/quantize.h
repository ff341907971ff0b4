#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "compute/format.h"
#include "shards/manifest.h"

namespace caravan {

struct QuantizeOptions {
  TensorType type = TensorType::kQ8_0;  // of matrices: any type that quantize() of compute/format.h writes
  uint32_t threads = 2;
  std::string name;  // general.name; empty: as the source says
  // Bytes of the source that were converted, for a Progress of total_bytes = quantize_bytes(source).
  std::function<void(uint64_t source_bytes)> advance;
  // What was left out or stored otherwise.
  std::function<void(const std::string& message)> note;
};

// Bytes of the source that quantize_model goes through.
uint64_t quantize_bytes(const Manifest& source);

// Writes `source`, a GGUF file or a Hugging Face folder, as a GGUF file of its own: matrices in
// options.type (F16 where a row is no multiple of the block), norms, biases and routers in F32. One tensor's
// run of rows is in memory at a time. The file is there when this returns, or not at all.
// Throws kUnsupported (a family or value the format cannot hold), kMalformed, kIo. Starts and joins
// options.threads - 1 threads.
void quantize_model(const Manifest& source, const std::string& out_path, const QuantizeOptions& options);

}  // namespace caravan
