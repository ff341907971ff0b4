#include "peers/keys.h"

#include <sodium.h>

#include <optional>
#include <string_view>

#include "base/check.h"
#include "base/error.h"
#include "base/secret_file.h"

namespace caravan {
namespace {

std::optional<KeyProof> proof_between(const PeerKey& subject, const PeerKey& other, const SecretKey& secret,
                                      std::span<const uint8_t> purpose) {
  KeyProof proof;
  std::array<uint8_t, crypto_box_BEFORENMBYTES> shared;
  // Nothing for a key of small order: a shared secret that everybody knows proves nothing.
  if (crypto_box_beforenm(shared.data(), other.bytes.data(), secret.bytes.data()) != 0) return std::nullopt;
  crypto_generichash_state state;
  constexpr std::string_view kDomain = "caravan key proof 1";
  crypto_generichash_init(&state, shared.data(), shared.size(), proof.bytes.size());
  crypto_generichash_update(&state, reinterpret_cast<const uint8_t*>(kDomain.data()), kDomain.size());
  crypto_generichash_update(&state, subject.bytes.data(), subject.bytes.size());
  crypto_generichash_update(&state, purpose.data(), purpose.size());
  crypto_generichash_final(&state, proof.bytes.data(), proof.bytes.size());
  sodium_memzero(shared.data(), shared.size());
  return proof;
}

}  // namespace

KeyPair key_pair_of_seed(const std::array<uint8_t, 32>& seed) {
  KeyPair keys;
  CHECK(sodium_init() >= 0);
  CHECK(crypto_box_seed_keypair(keys.public_key.bytes.data(), keys.secret_key.bytes.data(), seed.data()) ==
        0);
  return keys;
}

KeyPair make_key_pair(Random& random) {
  std::array<uint8_t, 32> seed;
  random.fill(seed);
  const KeyPair keys = key_pair_of_seed(seed);
  sodium_memzero(seed.data(), seed.size());
  return keys;
}

KeyPair load_or_create_keys(const std::string& state_folder, Random& random) {
  CHECK(sodium_init() >= 0);
  KeyPair keys;
  keys.secret_key.bytes = load_or_create_secret(state_folder + "/keys", "curve.key", "caravan key 1", random,
                                                [&] { return make_key_pair(random).secret_key.bytes; });
  CHECK(crypto_scalarmult_base(keys.public_key.bytes.data(), keys.secret_key.bytes.data()) == 0);
  return keys;
}

KeyProof prove_key(const KeyPair& own, const PeerKey& other, std::span<const uint8_t> purpose) {
  const auto proof = proof_between(own.public_key, other, own.secret_key, purpose);
  if (!proof) fail(ErrorCode::kRefused, "{} is no key", short_string(other));
  return *proof;
}

bool is_proof(const KeyProof& proof, const PeerKey& of, const KeyPair& own,
              std::span<const uint8_t> purpose) {
  const auto expected = proof_between(of, of, own.secret_key, purpose);
  return expected && sodium_memcmp(proof.bytes.data(), expected->bytes.data(), proof.bytes.size()) == 0;
}

}  // namespace caravan
