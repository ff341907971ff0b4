#pragma once

#include <string>

#include "base/ids.h"
#include "proto/messages.h"

namespace caravan {

// What a peer knows of itself, independent of what an assignment says.
struct OwnFacts {
  PeerKey key;
  Hash256 model;
  std::string numerics_class;
  Hash256 weights = {};
};

// The hash that neighbours compare before a ring is ready: protocol version, model, edges of all spans,
// codec, positions, KV type and numerics classes, where what the peer knows of itself stands in place of what
// the assignment says about it. Equal exactly when both would compute the same thing.
Hash256 contract_hash(const Assign& assign, const OwnFacts& own);

}  // namespace caravan
