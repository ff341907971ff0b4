#include "peers/keys.h"

#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <system_error>

#include "base/check.h"
#include "base/error.h"

namespace caravan {
namespace {

constexpr std::string_view kFirstLine = "caravan key 1\n";
constexpr size_t kFileBytes = kFirstLine.size() + 64 + 1;

[[noreturn]] void fail_folder(const std::string& path, int error) {
  fail(ErrorCode::kIo, "{}: {}; choose a folder that can be written with --state DIR", path,
       std::generic_category().message(error));
}

struct File {
  int descriptor;
  explicit File(int d) : descriptor(d) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    if (descriptor >= 0) close(descriptor);
  }
};

std::optional<KeyPair> load(const std::string& path) {
  const File file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (file.descriptor < 0) {
    if (errno == ENOENT) return std::nullopt;
    fail_folder(path, errno);
  }
  struct stat status {};
  if (fstat(file.descriptor, &status) != 0) fail_folder(path, errno);
  if ((status.st_mode & 077) != 0)
    fail(ErrorCode::kRefused, "{}: others may read this key; chmod 600 it, or make a new one", path);
  std::array<char, kFileBytes + 1> text;
  const ssize_t bytes = read(file.descriptor, text.data(), text.size());
  if (bytes < 0) fail_folder(path, errno);
  SecretKey secret;
  const std::string_view all(text.data(), static_cast<size_t>(bytes));
  if (all.size() != kFileBytes || all.substr(0, kFirstLine.size()) != kFirstLine || all.back() != '\n' ||
      !from_hex(all.substr(kFirstLine.size(), 64), secret.bytes.data(), secret.bytes.size()))
    fail(ErrorCode::kMalformed, "{}: not a key of this program", path);
  KeyPair keys;
  keys.secret_key = secret;
  CHECK(crypto_scalarmult_base(keys.public_key.bytes.data(), secret.bytes.data()) == 0);
  return keys;
}

// Whole or not at all, and never over a file that is there: false when another process was first.
bool store(const std::string& path, const KeyPair& keys, Random& random) {
  const std::string temporary = path + "." + std::to_string(random.next());
  {
    const File file(open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (file.descriptor < 0) fail_folder(temporary, errno);
    const std::string text = std::string(kFirstLine) + to_string(keys.secret_key) + "\n";
    const ssize_t written = write(file.descriptor, text.data(), text.size());
    if (written != static_cast<ssize_t>(text.size()) || fsync(file.descriptor) != 0) {
      const int error = written < 0 || errno != 0 ? errno : ENOSPC;
      unlink(temporary.c_str());
      fail_folder(temporary, error);
    }
  }
  const bool linked = link(temporary.c_str(), path.c_str()) == 0;
  const int error = errno;
  unlink(temporary.c_str());
  if (!linked && error != EEXIST) fail_folder(path, error);
  const File folder(open(std::filesystem::path(path).parent_path().c_str(), O_RDONLY | O_CLOEXEC));
  if (folder.descriptor >= 0) fsync(folder.descriptor);
  return linked;
}

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
  const std::string folder = state_folder + "/keys";
  const std::string path = folder + "/curve.key";
  if (const auto keys = load(path)) return *keys;
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) fail_folder(folder, error.value());
  std::filesystem::permissions(folder, std::filesystem::perms::owner_all, error);
  if (error) fail_folder(folder, error.value());
  const KeyPair made = make_key_pair(random);
  if (store(path, made, random)) return made;
  const auto keys = load(path);
  if (!keys) fail(ErrorCode::kIo, "{}: was there and is gone", path);
  return *keys;
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
