#include "base/hash.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#if defined(__x86_64__)
// The same sums, by the widest instructions that the processor has.
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif

#include <new>

#include "base/check.h"

namespace caravan {

namespace {

// Debian's libxxhash 0.8.1 leaves the upper halves of the vector registers in use. What then runs on the
// thread with the older instructions, as all code does that is compiled for any x86-64, takes up to sixty
// times as long on some processors.
void clear_upper_halves() {
#if defined(__x86_64__)
  static const bool has_avx = __builtin_cpu_supports("avx");
  if (has_avx) __asm__ volatile("vzeroupper");
#endif
}

}  // namespace

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  CHECK(EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() = default;

Sha256& Sha256::update(std::span<const std::byte> bytes) {
  CHECK(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()) == 1);
  return *this;
}

Sha256& Sha256::update(uint64_t value) {
  std::byte bytes[8];
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<std::byte>(value >> (8 * i));
  return update(std::span<const std::byte>(bytes));
}

Hash256 Sha256::finish() {
  Hash256 hash;
  unsigned size = 0;
  CHECK(EVP_DigestFinal_ex(state_->context, hash.bytes.data(), &size) == 1);
  CHECK(size == hash.bytes.size());
  return hash;
}

Hash256 sha256(std::span<const std::byte> bytes) {
  return Sha256().update(bytes).finish();
}

Hash256 keyed_hash(std::span<const uint8_t, 32> key, std::span<const std::byte> bytes) {
  Hash256 hash;
  unsigned size = 0;
  CHECK(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
             reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), hash.bytes.data(),
             &size) != nullptr);
  CHECK(size == hash.bytes.size());
  return hash;
}

uint64_t xxh3(std::span<const std::byte> bytes, uint64_t seed) {
  const uint64_t sum = XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
  clear_upper_halves();
  return sum;
}

struct Xxh3::State {
  XXH3_state_t* const state = XXH3_createState();
  ~State() { XXH3_freeState(state); }
};

Xxh3::Xxh3(uint64_t seed) : seed_(seed), state_(std::make_unique<State>()) {
  if (state_->state == nullptr) throw std::bad_alloc();
  begin_again();
}

Xxh3::~Xxh3() = default;

void Xxh3::begin_again() {
  CHECK(XXH3_64bits_reset_withSeed(state_->state, seed_) == XXH_OK);
}

void Xxh3::update(std::span<const std::byte> bytes) {
  CHECK(XXH3_64bits_update(state_->state, bytes.data(), bytes.size()) == XXH_OK);
  clear_upper_halves();
}

uint64_t Xxh3::sum() const {
  const uint64_t sum = XXH3_64bits_digest(state_->state);
  clear_upper_halves();
  return sum;
}

}  // namespace caravan
