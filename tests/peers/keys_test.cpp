#include "peers/keys.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>
#include <vector>

#include "base/error.h"
#include "peers/endpoint.h"
#include "tests/support/temporary_folder.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;
using test::TemporaryFolder;

std::string error_of(const std::function<void()>& call, ErrorCode code) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.message();
    return error.message();
  }
  ADD_FAILURE() << "no error";
  return "";
}

TEST(Keys, AreMadeOnceAndForTheOwnerAlone) {
  TemporaryFolder folder;
  SystemRandom random;
  const KeyPair made = load_or_create_keys(folder.path(), random);
  const KeyPair again = load_or_create_keys(folder.path(), random);
  EXPECT_EQ(made.public_key, again.public_key);
  EXPECT_TRUE(made.secret_key == again.secret_key);
  struct stat status {};
  ASSERT_EQ(stat((folder.path() + "/keys/curve.key").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  size_t files = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(folder.path() + "/keys")) ++files;
  EXPECT_EQ(files, 1u) << "something was left beside the key";
}

TEST(Keys, ProcessesThatStartAtOnceGetTheSame) {
  for (int round = 0; round < 20; ++round) {
    TemporaryFolder folder;
    std::vector<PeerKey> keys(4);
    std::vector<std::thread> threads;
    for (PeerKey& key : keys)
      threads.emplace_back([&] {
        SystemRandom random;
        key = load_or_create_keys(folder.path(), random).public_key;
      });
    for (std::thread& thread : threads) thread.join();
    for (const PeerKey& key : keys) ASSERT_EQ(key, keys[0]);
  }
}

TEST(Keys, AFolderThatCannotBeWrittenNamesTheFlag) {
  SystemRandom random;
  EXPECT_NE(error_of([&] { load_or_create_keys("/proc/caravan", random); }, ErrorCode::kIo).find("--state"),
            std::string::npos);
}

TEST(Keys, AFileThatIsNoKeyOrThatOthersReadIsRefused) {
  TemporaryFolder folder;
  SystemRandom random;
  load_or_create_keys(folder.path(), random);
  const std::string path = folder.path() + "/keys/curve.key";
  chmod(path.c_str(), 0644);
  EXPECT_NE(error_of([&] { load_or_create_keys(folder.path(), random); }, ErrorCode::kRefused).find(path),
            std::string::npos);
  chmod(path.c_str(), 0600);
  std::ofstream(path) << "nonsense\n";
  error_of([&] { load_or_create_keys(folder.path(), random); }, ErrorCode::kMalformed);
}

TEST(Keys, OnlyTheHolderOfASecretCanProveAKey) {
  SeededRandom random(1);
  const KeyPair peer = make_key_pair(random), head = make_key_pair(random), thief = make_key_pair(random);
  const std::vector<uint8_t> purpose = {1, 2, 3}, other = {1, 2, 4};
  const KeyProof proof = prove_key(peer, head.public_key, purpose);
  EXPECT_TRUE(is_proof(proof, peer.public_key, head, purpose));
  EXPECT_FALSE(is_proof(proof, peer.public_key, head, other));
  EXPECT_FALSE(is_proof(proof, thief.public_key, head, purpose));
  EXPECT_FALSE(is_proof(proof, peer.public_key, thief, purpose));
  const KeyPair pretender{peer.public_key, thief.secret_key};
  EXPECT_FALSE(is_proof(prove_key(pretender, head.public_key, purpose), peer.public_key, head, purpose));
  EXPECT_FALSE(is_proof(KeyProof{}, PeerKey{}, head, purpose)) << "a key of small order proves nothing";
}

TEST(Endpoint, ReadsWhatPeopleWrite) {
  EXPECT_EQ(to_string(parse_endpoint("127.0.0.1:80", false)), "tcp://127.0.0.1:80");
  EXPECT_EQ(to_string(parse_endpoint("tcp://some-host.example:4242", false)), "tcp://some-host.example:4242");
  EXPECT_EQ(to_string(parse_endpoint("[fe80::1]:9", false)), "tcp://[fe80::1]:9");
  EXPECT_EQ(parse_endpoint("127.0.0.1:0", true).port, 0);
  for (const char* bad : {"", "host", "host:", "host:x", "host:65536", "host:-1", ":80", "[::1:80", "[]:80",
                          "a b:80", "ipc:///x:1", "host:80/", "127.0.0.1:0", "::1:80"})
    error_of([&] { parse_endpoint(bad, false); }, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace caravan
