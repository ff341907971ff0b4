#pragma once

#include <cstdint>
#include <string>

namespace caravan {

// What configs/caravan.toml can say; every key has the name of its flag with underscores. Flags win over the file, the
// file over these defaults. Empty text and 0 mean: decided by the program, as the comment says.
struct Config {
  std::string log_level = "warning";
  std::string state;               // the folder for keys, pins and the like; default ~/.local/state/caravan
  uint32_t threads = 0;            // default: the cores
  std::string isa = "auto";
  bool exact = false;              // f32 activations
  std::string kv_type = "f32";
  uint32_t context = 0;            // default: the model's, at most 4096
  std::string name;                // the model's id in the API; default: the file's stem
  double peer_timeout_s = 10;
  std::string codec = "bf16";
  std::string api = "127.0.0.1:8080";
  std::string api_key;
  std::string listen;              // where peers connect; default 127.0.0.1:7420, ephemeral in demo and join
  uint32_t max_sequences = 16;     // that run at once; more wait
  uint32_t prefill_rows = 256;     // prompt rows of one step
};

// Throws kNotFound, kMalformed naming file, line and key; an unknown key is told with the nearest known one.
Config load_config(const std::string& path);

}  // namespace caravan
