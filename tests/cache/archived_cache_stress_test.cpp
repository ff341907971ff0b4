// Sequences over several lives of a process, its archive behind few frames or many: whatever is read is what
// was written, also with failing disks, and both disks keep to their bounds.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <new>
#include <thread>

#include "cache/kv_value.h"
#include "store/memory_bulk.h"
#include "store/memory_store.h"
#include "tests/cache/archive_support.h"
#include "tests/cache/tale.h"
#include "tests/support/sanitized.h"

namespace caravan {
namespace {

using namespace test;
using Fault = MemoryBulk::Fault;
using Operation = MemoryBulk::Operation;

constexpr Bytes kLimit{8 << 20}, kSmallLimit{600'000};

// What was written at some time, to begin with again.
struct Library {
  std::vector<std::vector<float>> chains;
  void add(const std::vector<float>& numbers) {
    std::vector<float> whole(
        numbers.begin(), numbers.begin() + static_cast<ptrdiff_t>(numbers.size() / kPositions * kPositions));
    if (!whole.empty()) chains.push_back(std::move(whole));
  }
};

struct StressCounts {
  uint64_t failures = 0, gone = 0, rows = 0, loads = 0, loaded_blocks = 0;
  std::atomic<uint64_t> copied_parts{0};
};

// Counts what the thread that spills reads from the archive: to copy it. Both disks tell.
class CopyWatch {
 public:
  void spills(Operation operation) {
    if (operation == Operation::kCommit) spiller_ = std::this_thread::get_id();
  }
  void archive(Operation operation, std::atomic<uint64_t>& parts) {
    if (operation == Operation::kRead && std::this_thread::get_id() == spiller_) ++parts;
  }

 private:
  std::atomic<std::thread::id> spiller_;
};

// Random opens, loads, forks, growth, cuts and closes over several lives of the process, against what the
// sequences should hold: whatever is read must be what was written.
void stress_life(Tale& tale, KvArchive& archive, SeededRandom& random, int steps, Library& library,
                 uint64_t& next, StressCounts& counts) {
  const auto pick = [&] {
    auto entry = tale.sequences().begin();
    std::advance(entry, static_cast<long>(random.below(tale.sequences().size())));
    return entry->first;
  };
  for (int step = 0; step < steps && !testing::Test::HasFatalFailure(); ++step) {
    const uint64_t choice = random.below(14);
    if (random.below(12) == 0)
      for (uint64_t idle = random.below(24); idle > 0; --idle) tale.idle();
    try {
      if (tale.sequences().empty() || (choice == 0 && tale.sequences().size() < 6)) {
        tale.open(next++);
      } else if (choice <= 2 && !library.chains.empty() && tale.sequences().size() < 8 &&
                 tale.cache().blocks_free() > 60) {
        std::vector<float> numbers = library.chains[random.below(library.chains.size())];
        const uint32_t found = tale.archived(numbers);
        if (found == 0) continue;
        numbers.resize(size_t{kPositions} * (1 + random.below(found)));
        ++counts.loads;
        counts.loaded_blocks += numbers.size() / kPositions;
        tale.load(next++, numbers);
      } else if (choice == 3) {
        const uint64_t sequence = pick();
        library.add(tale.sequences().at(sequence));
        tale.close(sequence);
      } else if (choice == 4 && tale.cache().blocks_free() > 60) {
        const uint64_t from = pick();
        tale.fork(from, next, static_cast<uint32_t>(random.below(tale.length(from) + 1)));
        ++next;
      } else if (choice == 5 && tale.cache().blocks_free() > 60) {
        const uint64_t sequence = pick();
        try {
          tale.truncate(sequence, static_cast<uint32_t>(random.below(tale.length(sequence) + 1)));
        } catch (const Error&) {
          ++counts.failures;
          tale.close(sequence);
        }
      } else if (tale.cache().blocks_free() > 80) {
        std::vector<Range> ranges;
        for (const auto& [sequence, numbers] : tale.sequences())
          if (random.below(2) == 0)
            ranges.push_back({sequence, 1 + static_cast<uint32_t>(random.below(random.below(3) ? 2 : 150))});
        for (const Range& range : ranges) counts.rows += range.count;
        for (const uint64_t sequence : tale.run(ranges)) {
          // It made room between the look and the load.
          if (tale.last_error().find("not in the archive any more") != std::string::npos)
            ++counts.gone;
          else
            ++counts.failures;
          tale.close(sequence);
        }
      } else {
        tale.close(pick());
      }
    } catch (const Error&) {
      ++counts.failures;  // of a fork: its sequence is not open then
    }
    if (random.below(30) == 0) archive.settle();
  }
  while (!tale.sequences().empty()) {
    library.add(tale.sequences().begin()->second);
    tale.close(tale.sequences().begin()->first);
  }
  EXPECT_EQ(tale.cache().blocks_free(), tale.cache().block_count());
}

struct Disks {
  std::shared_ptr<MemoryBulk> spill, values;
  std::shared_ptr<MemoryStore> records;
};

void stress(uint64_t seed, const Disks& disks, StressCounts& counts, HandClock& clock, Bytes limit) {
  SeededRandom random(seed);
  Library library;
  uint64_t next = 1;
  float number = 0;
  for (int life = 0; life < 4 && !testing::Test::HasFatalFailure(); ++life) {
    KvArchive archive(disks.values, disks.records, clock,
                      KvArchiveOptions{limit, std::nullopt, {}, "the archive"});
    disks.spill->erase_range("", std::string(16, '\xff'));
    const bool spills = random.below(3) > 0;
    Tale tale(spills ? disks.spill.get() : nullptr, &archive,
              spills ? 2 + static_cast<uint32_t>(random.below(12)) : 256);
    tale.count_on_from(number);
    stress_life(tale, archive, random, 60, library, next, counts);
    number = tale.last_number();
    clock.advance(std::chrono::seconds(11));
    archive.settle();
    EXPECT_LE(disks.values->bytes().count, limit.count) << "seed " << seed;
    // As --disk is reckoned: all that are in use, and half as many dead; and those that are left alone.
    const uint64_t block = KvCache::block_bytes(kLayers, KvType::kF32).count + 3 * kKvSealBytes;
    EXPECT_LE(disks.spill->bytes().count, (256 + 128 + 64 + 16) * block) << "seed " << seed;
  }
}

TEST(ArchivedCacheStress, SequencesReadWhatWasWrittenOverFourLives) {
  StressCounts counts;
  HandClock clock;
  for (uint64_t seed = 1; seed <= test::fewer(16); ++seed) {
    CopyWatch watch;
    const Disks disks{std::make_shared<MemoryBulk>([&](Operation operation, std::string_view) {
                        watch.spills(operation);
                        return Fault::kNone;
                      }),
                      std::make_shared<MemoryBulk>([&](Operation operation, std::string_view) {
                        watch.archive(operation, counts.copied_parts);
                        return Fault::kNone;
                      }),
                      std::make_shared<MemoryStore>()};
    stress(seed, disks, counts, clock, seed % 2 ? kLimit : kSmallLimit);
    if (testing::Test::HasFailure()) FAIL() << "seed " << seed;
  }
  EXPECT_EQ(counts.failures, 0u);
  EXPECT_LT(counts.gone, counts.loads / 4);
  EXPECT_GT(counts.loads, test::fewer(100));
  EXPECT_GT(counts.loaded_blocks, test::fewer(300));
  EXPECT_GT(counts.copied_parts, test::fewer(300)) << "of what idled";
}

TEST(ArchivedCacheStress, AFailingDiskCostsRecomputingAndNothingElse) {
  StressCounts counts;
  HandClock clock;
  for (uint64_t seed = 1; seed <= test::fewer(24); ++seed) {
    std::atomic<uint64_t> operations{0};
    std::atomic<bool> fails{true};
    const auto inject = [&](Operation operation, std::string_view) {
      const uint64_t n = mix64(seed * 7000003 + operations++);
      if (!fails) return Fault::kNone;
      if (n % 29 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
      if (n % 311 == 0) clock.advance(std::chrono::seconds(15));
      if (n % 97 != 0) return Fault::kNone;
      constexpr Fault kReads[] = {Fault::kShort, Fault::kCorrupt, Fault::kIo};
      constexpr Fault kWrites[] = {Fault::kFull, Fault::kIo};
      // What opening erases has to work.
      if (operation == Operation::kErase) return Fault::kNone;
      // Not of the disk, but while it is used: no memory for a table, a record, a value that was read.
      if (n / 97 % 4 == 0) throw std::bad_alloc();
      return operation == Operation::kRead ? kReads[n / 97 % 3] : kWrites[n / 97 % 2];
    };
    CopyWatch watch;
    const Disks disks{std::make_shared<MemoryBulk>([&](Operation operation, std::string_view key) {
                        watch.spills(operation);
                        return inject(operation, key);
                      }),
                      std::make_shared<MemoryBulk>([&](Operation operation, std::string_view key) {
                        watch.archive(operation, counts.copied_parts);
                        return inject(operation, key);
                      }),
                      std::make_shared<MemoryStore>([&](MemoryStore::Operation operation, std::string_view) {
                        const uint64_t n = mix64(seed + operations++);
                        if (operation != MemoryStore::Operation::kPut || n % 61 != 0) return false;
                        if (n / 61 % 4 == 0) throw std::bad_alloc();
                        return true;
                      })};
    try {
      stress(seed, disks, counts, clock, seed % 2 ? kLimit : kSmallLimit);
    } catch (const std::exception&) {
      ++counts.failures;  // it could not be opened
    }
    if (testing::Test::HasFailure()) FAIL() << "seed " << seed;
  }
  EXPECT_GT(counts.failures, test::fewer(20)) << "the faults were felt";
  EXPECT_GT(counts.loads, test::fewer(100));
  EXPECT_GT(counts.copied_parts, test::fewer(100));
}

}  // namespace
}  // namespace caravan
