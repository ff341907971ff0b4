#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "base/ids.h"
#include "base/random.h"

namespace caravan {

using SecretKey = Blob<struct SecretKeyTag, 32>;

// Who a peer is: a key pair of CURVE (X25519).
struct KeyPair {
  PeerKey public_key;
  SecretKey secret_key;
};

KeyPair key_pair_of_seed(const std::array<uint8_t, 32>& seed);
KeyPair make_key_pair(Random& random);

// The keys of `state_folder` (keys/curve.key, mode 0600), made at the first start. Two processes that start
// at once get the same keys. Throws kIo (the message names --state) when the folder cannot be written,
// kMalformed for a file that is no key, kRefused for one that others may read.
KeyPair load_or_create_keys(const std::string& state_folder, Random& random);

// Proof that its maker holds the secret to `own.public_key`, made for the holder of `other` and for
// `purpose`; it says nothing to anyone else.
using KeyProof = Blob<struct KeyProofTag, 32>;
KeyProof prove_key(const KeyPair& own, const PeerKey& other, std::span<const uint8_t> purpose);
bool is_proof(const KeyProof& proof, const PeerKey& of, const KeyPair& own, std::span<const uint8_t> purpose);

}  // namespace caravan
