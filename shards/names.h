#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "shards/manifest.h"

namespace caravan {

// Where a file's tensor belongs.
struct Place {
  GroupId group;
  Role role{};
  bool fused = false;  // all experts of the layer in one tensor; group.expert is 0
};

// Nothing when no role fits the name. `architecture` is general.architecture or model_type: a few families
// mean other norms by the same names.
std::optional<Place> place_of(Manifest::Origin origin, std::string_view architecture, std::string_view name);

// Norms, biases and rope factors are vectors; all other roles are matrices.
bool is_vector(Role role);

// The layer that a name speaks of, whether or not a role fits it.
std::optional<uint32_t> layer_of(Manifest::Origin origin, std::string_view name);

// GGUF's name for a place; of experts the one of the fused tensor.
std::string gguf_name(GroupId group, Role role);

// What a file of this kind calls the tensor of a place, as most such files do; for messages about one that is
// missing.
std::string usual_name(Manifest::Origin origin, std::string_view architecture, GroupId group, Role role);

}  // namespace caravan
