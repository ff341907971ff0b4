#include <gtest/gtest.h>

#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>

#include "base/budget.h"
#include "base/bytes.h"
#include "base/caught_error.h"
#include "base/check.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/mailbox.h"
#include "base/progress.h"
#include "base/random.h"
#include "base/seconds_text.h"
#include "base/source.h"

namespace caravan {
namespace {

TEST(Bytes, ReadsAndPrintsSizes) {
  EXPECT_EQ(parse_bytes("2GiB").count, 2ull << 30);
  EXPECT_EQ(parse_bytes("512 MiB").count, 512ull << 20);
  EXPECT_EQ(parse_bytes("1.5k").count, 1536u);
  EXPECT_EQ(parse_bytes("3MB").count, 3'000'000u);
  EXPECT_EQ(to_string(Bytes{1536}), "1.5 KiB");
  EXPECT_EQ(to_string(Bytes{999}), "999 B");
  for (const char* bad : {"", "GiB", "-1", "1x", "nan", "1e30", "2 GiB more"})
    EXPECT_THROW(parse_bytes(bad), Error) << bad;
}

TEST(Bytes, ReadsBudgetsAsSizesOrShares) {
  EXPECT_EQ(parse_budget("50%", Bytes{1000}).count, 500u);
  EXPECT_EQ(parse_budget("12.5%", Bytes{1000}).count, 125u);
  EXPECT_EQ(parse_budget("2GiB", Bytes{1000}).count, 2ull << 30);
  for (const char* bad : {"", "%", "0%", "-5%", "101%", "x%", "5 %%"})
    EXPECT_THROW(parse_budget(bad, Bytes{1000}), Error) << bad;
}

TEST(Budget, RefusesWhatDoesNotFitAndTakesBackWhatIsDropped) {
  Budget budget("ram", Bytes{100});
  Reservation first = budget.reserve(MemoryTag::kWeights, Bytes{70});
  EXPECT_EQ(budget.try_reserve(MemoryTag::kState, Bytes{31}).bytes().count, 0u);
  try {
    budget.reserve(MemoryTag::kState, Bytes{31});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory);
    EXPECT_NE(error.message().find("state"), std::string::npos);
  }
  { Reservation moved = std::move(first); }
  EXPECT_EQ(budget.used().count, 0u);
  Reservation other = budget.reserve(MemoryTag::kState, Bytes{100});
  other = budget.try_reserve(MemoryTag::kState, Bytes{1});
  EXPECT_EQ(budget.used().count, 0u);
}

TEST(CaughtError, SaysWhatTheSystemRefusedAndTheWayOut) {
  const auto of = [](const auto& thrown) {
    try {
      throw thrown;
    } catch (const std::exception&) {
      return caught_error();
    }
  };
  EXPECT_EQ(of(Error(ErrorCode::kLimit, "as it is")).code(), ErrorCode::kLimit);
  EXPECT_EQ(of(Error(ErrorCode::kLimit, "as it is")).message(), "as it is");
  EXPECT_NE(of(std::bad_alloc()).message().find("no more memory; see"), std::string::npos);
  const auto again = std::make_error_code(std::errc::resource_unavailable_try_again);
  EXPECT_NE(of(std::system_error(again)).message().find("--threads"), std::string::npos);
  EXPECT_EQ(of(std::system_error(again)).code(), ErrorCode::kOutOfMemory);
  EXPECT_EQ(of(std::runtime_error("another")).message(), "another");
}

TEST(Check, EndsTheProcessAndPrintsBothValues) {
  const int a = 3, b = 4;
  EXPECT_DEATH(CHECK(a == b), "3 against 4");
  CHECK(a < b);
}

// As of RocksDB's own threads.
TEST(LackOfMemory, EndsTheProcessInWordsWhereNothingCatchesIt) {
  const auto end_by = [](const auto& throws) {
    explain_lack_of_memory();
    std::thread(throws).join();
  };
  EXPECT_EXIT(end_by([] { throw std::bad_alloc(); }), ::testing::ExitedWithCode(1),
              "^caravan: the system gives this process no more memory; .* stays\n$");
  EXPECT_EXIT(end_by([] {
                throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again));
              }),
              ::testing::ExitedWithCode(1), "^caravan: the system starts no more threads");
  EXPECT_DEATH(end_by([] { throw std::logic_error("a bug"); }), "a bug");
}

TEST(Random, IsAFunctionOfItsSeed) {
  SeededRandom one(7), same(7), other(8);
  const uint64_t value = one.next();
  EXPECT_EQ(value, same.next());
  EXPECT_NE(value, other.next());
  for (int i = 0; i < 1000; ++i) EXPECT_LT(one.below(10), 10u);
}

// RFC 4231, case 1: a shorter key is filled up with zeros.
TEST(Hash, GivesThePublishedKeyedHash) {
  std::array<uint8_t, 32> key{};
  std::fill_n(key.begin(), 20, uint8_t{0x0b});
  EXPECT_EQ(to_string(keyed_hash(key, std::as_bytes(std::span(std::string_view("Hi There"))))),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
}

TEST(Hash, GivesThePublishedSha256OfAbc) {
  EXPECT_EQ(to_string(Sha256().update(std::string_view("abc")).finish()),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Mailbox, IsBoundedAndDrainsAfterClosing) {
  Mailbox<int> box(2);
  EXPECT_TRUE(box.try_post(1));
  EXPECT_TRUE(box.try_post(2));
  EXPECT_FALSE(box.try_post(3));
  box.close();
  EXPECT_FALSE(box.post(4));
  EXPECT_EQ(box.take(), 1);
  EXPECT_EQ(box.take(), 2);
  EXPECT_EQ(box.take(), std::nullopt);
}

TEST(Mailbox, IsWaitedForAsLongAsOneLikes) {
  Mailbox<int> box(2);
  EXPECT_EQ(box.take(std::chrono::milliseconds(1)), std::nullopt);
  EXPECT_FALSE(box.closed());
  EXPECT_TRUE(box.post(1));
  EXPECT_EQ(box.take(std::chrono::hours(1)), 1);
  box.close();
  EXPECT_EQ(box.take(std::chrono::hours(1)), std::nullopt);
  EXPECT_TRUE(box.closed());
}

TEST(Source, RefusesReadsPastTheEnd) {
  MemorySource source({std::vector<std::byte>(10)});
  std::byte out[4];
  EXPECT_NO_THROW(source.read(0, 6, out));
  EXPECT_THROW(source.read(0, 7, out), Error);
  EXPECT_THROW(source.mapped({0, UINT64_MAX, 2}), Error);
  EXPECT_THROW(FileSource({"/nonexistent/file"}), Error);
}

TEST(Progress, IsQuietForShortWorkAndShowsRateAndTimeLeftForLong) {
  ManualClock clock;
  std::string out;
  Progress progress(clock, "load", Progress::Unit::kBytes, 4096, false,
                    [&](std::string_view text) { out += text; });
  progress.advance(1024);
  EXPECT_EQ(out, "");
  clock.advance(std::chrono::seconds(1));
  progress.advance(1024);
  EXPECT_EQ(out, "load: 2 KiB of 4 KiB (50 %), 2 KiB/s, 1 s left\n");
}

TEST(SecondsText, TakesTheUnitThatFitsAndNeverAnExponent) {
  const std::pair<double, const char*> cases[] = {{0, "0 ms"},
                                                  {0.00123, "1.23 ms"},
                                                  {0.0123, "12.3 ms"},
                                                  {0.9994, "999 ms"},
                                                  {0.9996, "1 s"},
                                                  {4.561, "4.56 s"},
                                                  {99.96, "100 s"},
                                                  {119, "119 s"},
                                                  {119.7, "2 min 0 s"},
                                                  {231, "3 min 51 s"},
                                                  {7199, "119 min 59 s"},
                                                  {7500, "2 h 5 min"},
                                                  {273600, "3 days 4 h"},
                                                  {1e300, "11574074074 days 1 h"}};
  for (const auto& [seconds, text] : cases) EXPECT_EQ(seconds_text(seconds), text);
}

}  // namespace
}  // namespace caravan
