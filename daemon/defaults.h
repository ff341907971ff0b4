#pragma once

#include <cstdint>
#include <string>

#include "base/config.h"
#include "compute/backend.h"
#include "daemon/engine.h"

namespace caravan {

// What the program decides where the configuration leaves a value open.

// Compute threads of a process that shares the machine with `sharers` of its kind.
uint32_t threads_of(const Config& config, uint32_t sharers);
KvType kv_type_of(const Config& config);
// Positions of one sequence: as configured (kLimit over what the model was trained for is only a warning),
// else the model's, at most 4096.
uint32_t context_of(const Config& config, const ModelSpec& spec);
EngineOptions engine_options(const Config& config, uint32_t sharers);
// What a child of a ring of `sharers` has of it, with a state folder of its own.
EngineOptions child_options(const Config& config, EngineOptions head, uint32_t sharers);
// --fetch-limit in bytes a second, as "10MiB/s" or "10MiB"; 0: none. Throws kInvalidArgument.
uint64_t fetch_limit_of(const Config& config);
// The model's id in the API.
std::string model_name(const Config& config, const Manifest& manifest);
// --state, $XDG_STATE_HOME/caravan or ~/.local/state/caravan; made when it is not there. Throws kIo naming
// --state.
std::string state_folder(const Config& config);
// The same folder for who only reads: not made, and it need not be there.
std::string state_folder_to_read(const Config& config);
// In it: what a peer has fetched of groups that are not in the store yet.
std::string fetch_folder(const std::string& state);
// Sets the log level.
void apply_log_level(const Config& config);

}  // namespace caravan
