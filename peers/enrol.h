#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "peers/keys.h"

namespace caravan {

// What the holder of a ticket asks, on a connection made with the ticket's one-time key: pin this key.
struct EnrolRequest {
  PeerKey key;       // permanent
  KeyProof proof;    // that the asker holds it, for this head and this one-time key
  std::string name;  // for people, at most limits::kMaxNameBytes
};

std::vector<std::byte> to_bytes(const EnrolRequest& request);
// Throws kMalformed, kLimit.
EnrolRequest parse_enrol_request(std::span<const std::byte> bytes);

EnrolRequest make_enrol_request(const KeyPair& own, const PeerKey& head, const PeerKey& one_time_key,
                                const std::string& name);
bool is_proven(const EnrolRequest& request, const KeyPair& head, const PeerKey& one_time_key);

}  // namespace caravan
