// The --disk that a refusal names, held against what engines then have of it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include "daemon/defaults.h"
#include "tests/support/temporary_folder.h"

namespace caravan {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

Config config_of(const std::string& state, const std::string& archive, uint64_t disk) {
  Config config;
  config.state = state;
  config.archive = archive;
  config.ram = "64MiB";
  config.disk = std::to_string(disk);
  return config;
}

// Of a process alone (no peers), or of each of so many that a head starts.
EngineOptions options_of(const Config& config, uint32_t peers) {
  const EngineOptions own = engine_options(config, std::max(1u, peers));
  return peers == 0 ? own : child_options(config, own, peers);
}

TEST(LeastDisk, IsEnoughBesideTheArchiveAndTheStoreAndHardlyMore) {
  for (const uint64_t store : {uint64_t{0}, 40 * kMiB})
    for (const uint32_t peers : {0u, 1u, 3u})
      for (const std::string archive : {"", "0", "1MiB", "30MiB", "600MiB"})
        for (const uint64_t wanted : {kMiB, 13 * kMiB, 90 * kMiB}) {
          SCOPED_TRACE(std::to_string(store / kMiB) + " MiB in the store, peers " + std::to_string(peers) +
                       ", archive " + archive + ", wanted " + std::to_string(wanted / kMiB) + " MiB");
          const test::TemporaryFolder folder;
          std::filesystem::create_directories(folder.path() + "/store");
          std::ofstream(folder.path() + "/store/weights") << "";
          std::filesystem::resize_file(folder.path() + "/store/weights", store);
          // Whatever the archive is while --disk is too small.
          for (const uint64_t disk : {kMiB, store + wanted / 2}) {
            const uint64_t least =
                options_of(config_of(folder.path(), archive, disk), peers).disk_flag(Bytes{wanted}).count;
            EXPECT_GE(options_of(config_of(folder.path(), archive, least), peers).kv_disk.count, wanted);
            if (least > 4 * kMiB) {
              // What is added for the store's growth, and for whole megabytes.
              const uint64_t less = least - 4 * kMiB;
              EXPECT_LT(options_of(config_of(folder.path(), archive, less), peers).kv_disk.count, wanted);
            }
          }
        }
}

}  // namespace
}  // namespace caravan
