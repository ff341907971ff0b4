#pragma once

#include <set>
#include <string>

#include "shards/metadata.h"

namespace caravan {

// Adds what a family's configuration class of Hugging Face takes where config.json does not have a key: such
// a file says the same as one that has it. A key in `nulls` was there and said null, which is no absence.
void add_config_defaults(const std::string& model_type, const std::set<std::string>& nulls, Metadata& config);

}  // namespace caravan
