#pragma once

#include <cstdint>
#include <vector>

#include "base/unit_span.h"

namespace caravan {

// One layer, as the cutter sees it.
struct LayerCost {
  uint64_t bytes = 0;  // weights and the least state that the ring needs
  double work = 1;     // relative to a layer whose time peers announce
};

// One peer, as announced; in ring order.
struct PeerOffer {
  uint64_t memory_bytes = 0;
  uint64_t layer_ns = 0;  // measured for one layer and one row; 0: not measured
};

// Cuts layers 1..layers.size() into one span a peer, in the peers' order: contiguous, covering every layer
// once, within each peer's memory, with the least time of the slowest stage and, among such, the fewest
// stages. A peer may get an empty span. A peer that was not measured counts as the mean of the others.
// Nothing when the layers do not fit. A pure function.
std::vector<UnitSpan> cut_by_cost(const std::vector<LayerCost>& layers, const std::vector<PeerOffer>& peers);

// The same number of layers for every peer, the first ones taking one more where it does not come out even;
// the peers past the number of layers get none. Memory is still respected: nothing when it does not fit.
std::vector<UnitSpan> cut_evenly(const std::vector<LayerCost>& layers, const std::vector<PeerOffer>& peers);

// Nanoseconds of the slowest stage of a cut, for one row; infinite when a span does not fit its peer's
// memory. The spans may be in any order.
double slowest_stage_ns(const std::vector<LayerCost>& layers, const std::vector<PeerOffer>& peers,
                        const std::vector<UnitSpan>& spans);

}  // namespace caravan
