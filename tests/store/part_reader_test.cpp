#include "store/part_reader.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <stdexcept>
#include <vector>

#include "base/random.h"
#include "tests/store/faulty_ring.h"
#include "tests/support/temporary_folder.h"

namespace caravan {
namespace {

using test::TemporaryFolder;

constexpr uint64_t kMost = 2u << 20;

// A file of noise, and memory as direct reads want it.
class PartReaderTest : public testing::Test {
 protected:
  PartReaderTest() : content_(kMost + 1000) {
    SeededRandom random(1);
    for (std::byte& byte : content_) byte = static_cast<std::byte>(random.below(256));
    file_ = ::open((folder_.path() + "/file").c_str(), O_RDWR | O_CREAT, 0600);
    EXPECT_EQ(::write(file_, content_.data(), content_.size()), static_cast<ssize_t>(content_.size()));
    memory_ = static_cast<std::byte*>(
        ::mmap(nullptr, kMost, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  }
  ~PartReaderTest() override {
    ::munmap(memory_, kMost);
    ::close(file_);
  }

  TemporaryFolder folder_;
  std::vector<std::byte> content_;
  int file_ = -1;
  std::byte* memory_ = nullptr;
  PartReader reader_;
};

TEST_F(PartReaderTest, TheBeginningIsThereWheneverMoreOfItIsTold) {
  SeededRandom random(2);
  for (int round = 0; round < 60; ++round) {
    const uint64_t length = 4096 * (1 + random.below(kMost / 4096));
    const uint64_t offset = 4096 * random.below((content_.size() - length) / 4096 + 1);
    const uint64_t needed = length - random.below(4096);
    std::memset(memory_, 0, length);
    uint64_t told = 0;
    const bool is_there = reader_.read(file_, offset, {memory_, length}, needed, [&](uint64_t have) {
      ASSERT_GT(have, told);
      ASSERT_LE(have, needed);
      ASSERT_EQ(std::memcmp(memory_ + told, content_.data() + offset + told, have - told), 0);
      told = have;
    });
    EXPECT_TRUE(is_there);
    EXPECT_EQ(told, needed);
  }
}

TEST_F(PartReaderTest, AFileThatEndsBeforeIsToldAndOneThatEndsBehindIsNot) {
  const uint64_t last = content_.size() / 4096 * 4096, length = kMost, offset = last + 4096 - length;
  const uint64_t there = content_.size() - offset;
  uint64_t told = 0;
  const auto grown = [&](uint64_t have) { told = have; };
  EXPECT_TRUE(reader_.read(file_, offset, {memory_, length}, there, grown));
  EXPECT_EQ(told, there);
  EXPECT_FALSE(reader_.read(file_, offset, {memory_, length}, there + 1, grown));
  EXPECT_FALSE(reader_.read(file_, offset + kMost, {memory_, length}, 1, grown));
  EXPECT_FALSE(reader_.read(-1, 0, {memory_, length}, length, grown));
  EXPECT_TRUE(reader_.read(file_, offset, {memory_, length}, there, grown)) << "and it reads on";
}

// Or a read that is still under way would write into what is someone else's by then.
TEST_F(PartReaderTest, NothingIsWrittenOnceAUserHasThrown) {
  for (int round = 0; round < 50; ++round) {
    EXPECT_THROW(
        reader_.read(file_, 0, {memory_, kMost}, kMost, [](uint64_t) { throw std::runtime_error("enough"); }),
        std::runtime_error);
    std::memset(memory_, 7, kMost);
    if (round % 10 == 0) ::usleep(5000);
    for (uint64_t i = 0; i < kMost; i += 512) ASSERT_EQ(memory_[i], std::byte{7});
    uint64_t told = 0;
    EXPECT_TRUE(reader_.read(file_, 4096, {memory_, kMost}, kMost - 4096, [&](uint64_t have) {
      told = have;
    })) << "what was left of the last read is not taken for this one's";
    EXPECT_EQ(told, kMost - 4096);
    ASSERT_EQ(std::memcmp(memory_, content_.data() + 4096, told), 0);
  }
}

// With anything from nothing to all of the read in the system's hands.
TEST_F(PartReaderTest, AReadGoesOnWithoutARingThatTakesNothingMore) {
  using Fault = test::FaultyRing::Fault;
  for (const Fault fault : {Fault::kRefuses, Fault::kInterrupts, Fault::kTakesAndLies})
    for (int good = 0; good < 4; ++good)
      for (const bool throws : {false, true}) {
        SCOPED_TRACE(testing::Message() << static_cast<int>(fault) << " after " << good << " calls");
        PartReader reader;
        std::memset(memory_, 0, kMost);
        const test::FaultyRing faulty(fault, good);
        uint64_t told = 0;
        const auto read = [&] {
          told = 0;
          return reader.read(file_, 4096, {memory_, kMost - 4096}, kMost - 5000, [&](uint64_t have) {
            ASSERT_GT(have, told);
            ASSERT_EQ(std::memcmp(memory_ + told, content_.data() + 4096 + told, have - told), 0);
            told = have;
            if (throws) throw std::runtime_error("enough");
          });
        };
        if (throws) {
          EXPECT_THROW(read(), std::runtime_error);
          std::memset(memory_, 7, kMost);
          ::usleep(2000);
          for (uint64_t i = 0; i < kMost; i += 512) ASSERT_EQ(memory_[i], std::byte{7});
        } else {
          EXPECT_TRUE(read());
          EXPECT_EQ(told, kMost - 5000);
        }
        if (test::FaultyRing::calls() <= good) continue;  // it was over before
        // One that was only interrupted once it had all is given up by the next.
        for (const bool without : {false, true}) {
          const int calls = test::FaultyRing::calls();
          std::memset(memory_, 0, kMost);
          EXPECT_TRUE(reader.read(file_, 4096, {memory_, kMost}, kMost - 4096, [](uint64_t) {}));
          EXPECT_EQ(std::memcmp(memory_, content_.data() + 4096, kMost - 4096), 0);
          EXPECT_TRUE(!without || test::FaultyRing::calls() == calls) << "the ring is used again";
        }
      }
}

}  // namespace
}  // namespace caravan
