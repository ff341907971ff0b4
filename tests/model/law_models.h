#pragma once

#include <string>

#include "bench/generate.h"
#include "shards/manifest.h"
#include "tests/support/sanitized.h"
#include "tests/support/temporary_folder.h"

namespace caravan::test {

// What the laws are tested with: "demo", the demo model, and "experts". Under the sanitizers, which look at
// the ways through the code and not at the numbers, a smaller model of noise with the same formats stands for
// the demo model.
inline Manifest law_model(const std::string& name) {
  const std::string source = CARAVAN_SOURCE_DIR;
  if (name == "experts") return read_manifest(source + "/tests/reference/cases/qwen3_moe");
  if (!takes_less()) return read_manifest(source + "/configs/demo/demo.gguf");
  static const TemporaryFolder folder;
  static const std::string file = [] {
    ModelShape shape{"small", "llama"};
    shape.layers = 6;
    shape.width = 128;
    shape.feed_forward = 384;
    shape.heads = 4;
    shape.kv_heads = 2;
    shape.head_width = 32;
    shape.vocabulary = 512;
    shape.context = 2048;
    std::string path = folder.path() + "/small.gguf";
    generate_model(shape, TensorType::kQ8_0, 1, path, [](uint64_t) {});
    return path;
  }();
  return read_manifest(file);
}

}  // namespace caravan::test
