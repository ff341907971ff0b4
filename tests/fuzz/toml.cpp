// Configuration files: each is read, or refused with an error that begins with the file's name.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "base/config.h"
#include "base/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const caravan::Config config =
        caravan::parse_config({reinterpret_cast<const char*>(data), size}, "fuzz.toml");
    CHECK(config.peer_timeout_s >= 0.1);
    CHECK((config.kv_type == "f32" || config.kv_type == "f16"));
  } catch (const caravan::Error& error) {
    CHECK(error.message().starts_with("fuzz.toml:"));
  }
  return 0;
}
