#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/key_value.h"

namespace caravan {

// How a ring that was ready had cut its layers, over all who were there when it formed. Peers archive the KV
// of the layers that they host, so that the same peers do well to have the same layers again.
struct EarlierCut {
  struct Share {
    PeerKey peer;
    uint64_t numerics = 0;  // stands for the peer's class: KV of another one is of no use
    uint32_t layers = 0;    // 0: no stage
    bool operator==(const Share&) const = default;
  };
  std::vector<Share> shares;  // in the ring's order
  bool operator==(const EarlierCut&) const = default;
};

// To keep beyond the process, in place of what was kept before.
struct KeepCuts {
  std::vector<EarlierCut> cuts;
};

uint64_t numerics_number(std::string_view numerics_class);
bool is_of_same_peers(const EarlierCut& one, const EarlierCut& other);

// Puts `cut` in front, in place of what there is of the same peers, and forgets the oldest beyond
// limits::kMaxEarlierCuts. Whether anything changed by that.
bool remember(std::vector<EarlierCut>& cuts, EarlierCut cut);

// The text under which they are kept: a version, then a line for each.
std::string encode_cuts(const std::vector<EarlierCut>& cuts);
// Each of them covers `layers` layers and names no peer twice. Throws kMalformed for all else, kUnsupported
// for another version.
std::vector<EarlierCut> decode_cuts(std::string_view text, uint32_t layers);

// Of one model, in a KeyValue. What cannot be read or written is told in the log: a ring does without.
std::vector<EarlierCut> load_cuts(const KeyValue& store, const Hash256& model, uint32_t layers);
void save_cuts(KeyValue& store, const Hash256& model, const std::vector<EarlierCut>& cuts);

}  // namespace caravan
