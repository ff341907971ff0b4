#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace caravan {

// What runs may cost, for the account of each request. 0: not counted.
struct Prices {
  std::string currency = "EUR";
  double kilowatt_hour = 0;
  double device_hour = 0;       // of one machine, beyond its energy
  double gigabyte_network = 0;  // 1e9 bytes
  bool operator==(const Prices&) const = default;
};

// What configs/caravan.toml can say; every key has the name of its flag with underscores. Flags win over the
// file, the file over these defaults. Empty text and 0 mean: decided by the program, as the comment says.
struct Config {
  std::string log_level = "warning";
  std::string state;     // the folder for keys, pins and the like; default ~/.local/state/caravan
  uint32_t threads = 0;  // default: the cores
  std::string isa = "auto";
  bool exact = false;     // f32 activations
  bool calibrate = true;  // serve and join measure the machine at their first start
  std::string kv_type = "f32";
  uint32_t context = 0;  // default: the model's, at most 4096
  std::string ram;       // budget of this peer, "4GiB" or "50%"; default: three quarters of what is free
  std::string kv_ram;    // of it, what keys and values may take at most
  std::string disk;      // what the store may take; default: no bound but the disk
  std::string archive;   // what KV of prompts seen before may take, in the state folder; "0": nothing is kept
  std::string archive_day;  // of it, what may be written in a day; default: no bound
  std::string fetch_limit;  // of a peer without the model: "10MiB/s" of weights; default: no bound
  std::string name;         // the model's id in the API; default: the file's stem
  double peer_timeout_s = 10;
  std::string codec = "bf16";
  std::string api = "127.0.0.1:8080";
  std::string api_key;
  std::vector<std::string> cors_origins;  // web pages that may use the API
  std::string listen;           // where peers connect; default 0.0.0.0:7420, ephemeral in demo and join
  uint32_t max_sequences = 16;  // that run at once; more wait
  uint32_t prefill_rows = 256;  // prompt rows of one step
  Prices prices;
  bool operator==(const Config&) const = default;
};

// Throws kNotFound or kIo; kLimit for a file over limits::kMaxSettingsBytes; kMalformed for what is no TOML;
// kInvalidArgument for an unknown key (naming the nearest known one), a wrong type or a value out of range.
// Messages begin with FILE:LINE.
Config load_config(const std::string& path);
// The same of a text; `file` is for messages.
Config parse_config(std::string_view text, std::string_view file);

// Every known key, tables dotted.
std::vector<std::string> config_keys();

}  // namespace caravan
