#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "shards/gguf.h"

namespace caravan {

inline std::string shared_folder() {
  const char* shared = std::getenv("CARAVAN_SHARED");
  return shared ? shared : CARAVAN_SOURCE_DIR "/../shared";
}

inline std::string demo_gguf() {
  return CARAVAN_SOURCE_DIR "/configs/demo/demo.gguf";
}

inline std::vector<std::byte> to_bytes(std::string_view text) {
  const auto* data = reinterpret_cast<const std::byte*>(text.data());
  return {data, data + text.size()};
}

inline std::vector<std::byte> read_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return to_bytes(text.view());
}

inline void write_bytes(const std::string& path, std::string_view text) {
  std::ofstream(path, std::ios::binary) << text;
}

// Puts a GGUF file together byte by byte, so that each of its parts can be wrong.
class GgufBytes {
 public:
  GgufBytes& u8(uint8_t value) { return text_.push_back(static_cast<char>(value)), *this; }
  GgufBytes& u32(uint32_t value) { return raw(&value, 4); }
  GgufBytes& u64(uint64_t value) { return raw(&value, 8); }
  GgufBytes& f32(float value) { return raw(&value, 4); }
  GgufBytes& text(std::string_view value) { return u64(value.size()).raw(value.data(), value.size()); }
  GgufBytes& type(GgufType value) { return u32(static_cast<uint32_t>(value)); }
  GgufBytes& key(std::string_view name, GgufType value_type) { return text(name).type(value_type); }
  GgufBytes& header(uint64_t tensors, uint64_t entries, uint32_t version = 3) {
    return raw("GGUF", 4).u32(version).u64(tensors).u64(entries);
  }
  GgufBytes& tensor(std::string_view name, std::vector<uint64_t> dimensions, uint32_t tensor_type,
                    uint64_t offset) {
    text(name).u32(static_cast<uint32_t>(dimensions.size()));
    for (const uint64_t size : dimensions) u64(size);
    return u32(tensor_type).u64(offset);
  }
  // Zeros up to the next multiple of `alignment`, then `count` more.
  GgufBytes& data(size_t count, size_t alignment = 32) {
    text_.resize((text_.size() + alignment - 1) / alignment * alignment + count);
    return *this;
  }
  std::vector<std::byte> bytes() const { return to_bytes(text_); }
  const std::string& string() const { return text_; }

 private:
  GgufBytes& raw(const void* data, size_t count) {
    return text_.append(static_cast<const char*>(data), count), *this;
  }
  std::string text_;
};

// Runs `body`, which must throw an Error of `code` whose message has every one of `words`.
template <class Body>
void expect_error(ErrorCode code, std::vector<std::string> words, Body body) {
  try {
    body();
    ADD_FAILURE() << "nothing was refused; expected: " << (words.empty() ? "" : words.back());
  } catch (const Error& error) {
    EXPECT_EQ(name(error.code()), name(code)) << error.message();
    for (const std::string& word : words)
      EXPECT_NE(error.message().find(word), std::string::npos) << error.message() << "\nlacks: " << word;
  }
}

}  // namespace caravan
