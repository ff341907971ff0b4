#pragma once

#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/random.h"
#include "model/vocabulary.h"
#include "model/vocabulary_gguf.h"
#include "shards/gguf.h"

namespace caravan::test {

inline std::string shared_folder() {
  const char* folder = std::getenv("CARAVAN_SHARED");
  return folder ? folder : CARAVAN_SOURCE_DIR "/../shared";
}

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

inline Vocabulary gguf_vocabulary(const std::string& path) {
  const std::string bytes = read_file(path);
  return vocabulary_from_metadata(read_gguf(std::as_bytes(std::span(bytes)), path).metadata);
}

inline Vocabulary demo_vocabulary() {
  return gguf_vocabulary(CARAVAN_SOURCE_DIR "/configs/demo/demo.gguf");
}

// A text of what breaks tokenizers: runs of one kind, joined at random.
inline std::string awkward_text(Random& random, size_t runs) {
  static const std::vector<std::string> kKinds = {" ",
                                                  "\n",
                                                  "\t",
                                                  "\r\n",
                                                  "a",
                                                  "Z",
                                                  "7",
                                                  "'s",
                                                  "'LL",
                                                  "\xC3\xA9",
                                                  "e\xCC\x81",
                                                  "\xE4\xBD\xA0",
                                                  "\xE3\x81\x8B",
                                                  "\xED\x95\x9C",
                                                  "\xF0\x9F\xA6\x99",
                                                  "\xE2\x80\x8D",
                                                  "\xCC\x8A",
                                                  "\xE2\x96\x81",
                                                  "\xC2\xA0",
                                                  "\xE2\x80\x83",
                                                  "\xE1\xA0\x8E",
                                                  "\xD9\xA3",
                                                  ".",
                                                  "...",
                                                  "$",
                                                  "<",
                                                  "\xC5\xBF",
                                                  "\xCA\xBC",
                                                  std::string(1, '\0'),
                                                  "\xEF\xBF\xBD",
                                                  "\xF3\xA0\x80\xA0",
                                                  "\xE0\xB8\x81"};
  std::string text;
  for (size_t i = 0; i < runs; ++i) {
    const std::string& kind = kKinds[random.below(kKinds.size())];
    const size_t count = random.below(10) == 0 ? 1 + random.below(40) : 1 + random.below(3);
    for (size_t k = 0; k < count; ++k) text += kind;
  }
  return text;
}

}  // namespace caravan::test
