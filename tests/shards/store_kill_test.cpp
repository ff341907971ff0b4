#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <set>

#include "base/clock.h"
#include "base/random.h"
#include "shards/store_import.h"
#include "shards/store_source.h"
#include "shards/store_verify.h"
#include "store/rocks_store.h"
#include "store_models.h"
#include "tests/support/temporary_folder.h"

// ThreadSanitizer knows nothing of a child that is forked from a process with threads and starts its own: now
// and then it crashes itself. What the child does, StoreTest does in one process; here it only dies, which
// rel and dev see.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CARAVAN_THREAD_SANITIZED
#endif
#endif
#ifndef CARAVAN_THREAD_SANITIZED

namespace caravan {
namespace {

constexpr uint64_t kSmallTables = 30'000;

std::shared_ptr<ShardStore> open_store(const std::string& folder) {
  RocksStore store(folder, {ShardStore::kRecordsFamily, ShardStore::kBulkFamily});
  return std::make_shared<ShardStore>(store.family(ShardStore::kRecordsFamily),
                                      store.bulk(ShardStore::kBulkFamily),
                                      ShardStoreOptions{.name = folder, .table_bytes = kSmallTables});
}

// Imports the model and removes it, again and again; says 'i' when the one was acknowledged, 'b' before the
// other begins and 'r' when it is done.
[[noreturn]] void import_and_remove(const std::string& folder, const std::string& model, int acknowledged) {
  const auto say = [&](char what) {
    if (write(acknowledged, &what, 1) != 1) _exit(1);
  };
  try {
    const auto store = open_store(folder);
    for (;;) {
      import_model(*store, read_manifest(model), {.copy = true});
      say('i');
      say('b');
      remove_model(*store, *store->find_model("model"));
      say('r');
    }
  } catch (const std::exception& error) {
    fprintf(stderr, "%s\n", error.what());
    _exit(2);
  }
}

// The last that the child said before it was killed after `microseconds`; 0 for nothing.
char run_until_killed(const std::string& folder, const std::string& model, unsigned microseconds) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    import_and_remove(folder, model, ends[1]);
  }
  close(ends[1]);
  usleep(microseconds);
  kill(child, SIGKILL);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status)) << "the import ended by itself with " << status;
  char last = 0;
  for (char what; read(ends[0], &what, 1) == 1;) last = what;
  close(ends[0]);
  return last;
}

TEST(ShardStoreKill, AtAnyMomentNothingAcknowledgedIsLostAndImportsGoOn) {
  test::TemporaryFolder folder;
  const std::string state = folder.path() + "/state", model = folder.path() + "/model";
  write_model({.experts = true, .tied = true, .layers = 3, .vocabulary = 2000, .width = 64}, model);
  write_model({.weights = 9}, folder.path() + "/kept");
  { import_model(*open_store(state), read_manifest(folder.path() + "/kept"), {.copy = true}); }
  const Manifest original = read_manifest(model);
  // Kills come within what one round takes here.
  const SystemClock clock;
  const Time begun = clock.now();
  {
    const auto store = open_store(state);
    import_model(*store, original, {.copy = true});
    remove_model(*store, *store->find_model("model"));
  }
  const auto round_us = static_cast<uint64_t>(seconds(clock.now() - begun) * 1.5e6) + 1;
  const char* wanted = std::getenv("CARAVAN_IMPORT_KILLS");
  const int kills = wanted && *wanted ? std::atoi(wanted) : 20;
  SeededRandom random(1);
  int partial = 0;
  // A machine so busy that all of these miss the import gets some more.
  for (int i = 0; i < kills || (partial == 0 && i < kills + 60); ++i) {
    const char last = run_until_killed(state, model, static_cast<unsigned>(random.below(round_us)));
    const auto store = open_store(state);
    ASSERT_TRUE(store->find_model("kept"));
    ASSERT_TRUE(verify_model(*store, *store->find_model("kept"), {}).empty());
    const auto record = store->find_model("model");
    if (last == 'i') {
      ASSERT_TRUE(record) << "an acknowledged import is lost: kill " << i;
    }
    if (record) {
      ASSERT_TRUE(verify_model(*store, *record, {}).empty()) << "kill " << i;
    }
    uint64_t there = 0;
    std::set<Hash256> counted;
    for (const WeightGroup& group : original.groups) {
      std::vector<std::byte> content(group.bytes().count);
      read_content(*original.source, group, 0, content);
      if (store->contains(sha256(content))) there += content.size();
    }
    partial += there > 0 && there < content_bytes(original);
    const ImportResult result = import_model(*store, original, {.copy = true});
    // Less when a removal was killed between a tied group and the one that it leans on.
    ASSERT_LE(result.copied_bytes + there, content_bytes(original)) << "copied again what was there";
    ASSERT_EQ(open_record(store, *store->find_model("model")).fingerprint(), original.fingerprint());
    ASSERT_TRUE(verify_model(*store, *store->find_model("model"), {}).empty());
    remove_model(*store, *store->find_model("model"));
    ASSERT_LT(store->bytes().count, 300'000u) << "what the kill left is gone";
  }
  EXPECT_GT(partial, 0) << "no kill came in the middle of an import";
}

}  // namespace
}  // namespace caravan

#endif
