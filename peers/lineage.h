#pragma once

#include "base/ids.h"
#include "peers/contract.h"
#include "proto/messages.h"

namespace caravan {

// What can change a bit of the state that the assigned stage keeps: model, KV type, the weights and numerics
// classes of all layers up to and with its own, and every lossy cut before them with its codec, the head's
// edge included. Where one class follows another or other weights do, and where a cut that loses something
// lies, is part of it; cuts within a class and weights under an exact codec leave no trace, so that then any
// cut of the layers gives the same. What
// the peer knows of itself stands in place of what the assignment says about it.
Lineage lineage_of(const Assign& assign, const OwnFacts& own);

}  // namespace caravan
