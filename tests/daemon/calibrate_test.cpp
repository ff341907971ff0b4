// What is measured, and when it is measured again.
#include "daemon/calibrate.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/clock.h"
#include "base/error.h"
#include "cache/kv_frames.h"
#include "daemon/calibrate_disk.h"
#include "tests/offload/planner_support.h"
#include "tests/support/temporary_folder.h"

namespace caravan {
namespace {

// Small and short: the figures do not matter here.
CalibrationOptions quick() {
  CalibrationOptions options;
  options.scratch_bytes = options.store_bytes = 8u << 20;
  options.memory_bytes = 16u << 20;
  options.seconds_each = 0.01;
  return options;
}

std::string read_text(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

class CalibrationTest : public testing::Test {
 protected:
  // Of a machine that is measured in no time.
  Calibration load(bool force = false) {
    return load_or_measure(clock_, folder_.path(), key_, force, [&] {
      ++measured_;
      return round_machine();
    });
  }
  std::string kept() const { return folder_.path() + "/calibration.json"; }

  ManualClock clock_;
  const test::TemporaryFolder folder_;
  const CalibrationKey key_ = calibration_key("auto");
  int measured_ = 0;
};

TEST_F(CalibrationTest, IsMeasuredOnceAndThenKept) {
  const Calibration first = load();
  EXPECT_TRUE(first.measured_now);
  EXPECT_EQ(first.note, "");
  clock_.advance(from_seconds(100));
  const Calibration second = load();
  EXPECT_FALSE(second.measured_now);
  EXPECT_EQ(measured_, 1);
  EXPECT_EQ(second.measurements, round_machine());
  EXPECT_EQ(second.key, key_);
  EXPECT_EQ(second.unix_seconds, first.unix_seconds);
  EXPECT_TRUE(load(true).measured_now);
  EXPECT_EQ(measured_, 2);
}

TEST_F(CalibrationTest, AnotherMachineOrBuildMeasuresAgain) {
  const Calibration first = load();
  const auto change = [&](auto apply) {
    Calibration other = first;
    apply(other.key);
    std::ofstream(kept()) << calibration_text(other);
    const Calibration again = load();
    EXPECT_TRUE(again.measured_now);
    EXPECT_NE(again.note.find("another machine or build"), std::string::npos) << again.note;
    EXPECT_EQ(again.key, first.key);
  };
  change([](CalibrationKey& key) { key.processor += "x"; });
  change([](CalibrationKey& key) { ++key.cores; });
  change([](CalibrationKey& key) { key.memory_bytes /= 2; });
  change([](CalibrationKey& key) { key.version = "caravan 0"; });
  change([](CalibrationKey& key) { key.build = "0123"; });
  change([](CalibrationKey& key) { key.isa = "other"; });
}

// Without what is measured by now.
TEST_F(CalibrationTest, AnEarlierFormatMeasuresAgain) {
  load();
  std::string text = read_text(kept());
  const std::string format = "\"format\": 3";
  ASSERT_NE(text.find(format), std::string::npos);
  text.replace(text.find(format), format.size(), "\"format\": 2");
  text.erase(text.find("    \"kv\": {"),
             text.find("    \"small_read_seconds\"") - text.find("    \"kv\": {"));
  std::ofstream(kept()) << text;
  EXPECT_FALSE(kept_calibration(folder_.path(), key_));
  EXPECT_TRUE(load().measured_now);
  EXPECT_EQ(kept_calibration(folder_.path(), key_)->measurements, round_machine());
}

TEST_F(CalibrationTest, ADamagedFileMeasuresAgainAndSaysSo) {
  load();
  const std::string text = read_text(kept());
  for (const std::string& damaged : {std::string(), std::string("{"), text.substr(0, text.size() / 2),
                                     std::string("[]"), std::string(200, '[')}) {
    std::ofstream(kept()) << damaged;
    const Calibration again = load();
    EXPECT_TRUE(again.measured_now);
    EXPECT_NE(again.note.find("is damaged"), std::string::npos) << again.note;
    EXPECT_NE(again.note.find(kept()), std::string::npos) << again.note;
    EXPECT_FALSE(load().measured_now);
  }
}

TEST_F(CalibrationTest, FiguresThatNothingCanBeDividedByAreDamage) {
  const std::string text = calibration_text(load());
  ASSERT_TRUE(parse_calibration(text));
  for (const char* key : {"\"sha256\": ", "\"one\": ", "\"bytes_per_second\": ", "\"read_while_computing\": ",
                          "\"sha256_while_both\": ", "\"memory_while_both\": "})
    for (const char* value : {"0", "-1", "1e999", "\"fast\"", "null"}) {
      std::string changed = text;
      const size_t at = changed.find(key) + std::string(key).size();
      ASSERT_LT(at, changed.size());
      changed.replace(at, changed.find_first_of(",\n}", at) - at, value);
      EXPECT_FALSE(parse_calibration(changed)) << key << value;
    }
}

TEST_F(CalibrationTest, AFolderThatCannotBeWrittenIsANote) {
  std::filesystem::create_directory(kept());
  const Calibration calibration = load();
  EXPECT_TRUE(calibration.measured_now);
  EXPECT_NE(calibration.note.find("not kept: "), std::string::npos) << calibration.note;
}

void expect_all_measured(const Measurements& machine) {
  EXPECT_EQ(machine.kernels.size(), 11u);
  EXPECT_EQ(machine.disk.size(), 1u);
  for (const auto& [type, rates] : machine.kernels) {
    EXPECT_GT(rates.row_bytes.one, 1e6) << name(type);
    EXPECT_GT(rates.row_bytes.all, 1e6) << name(type);
    EXPECT_GT(rates.many_operations.one, 1e6) << name(type);
    EXPECT_GT(rates.many_operations.all, 1e6) << name(type);
  }
  for (const DiskRate& rate : machine.disk) EXPECT_GT(rate.rate, 1e5);
  EXPECT_EQ(machine.kv.bytes, KvFrames::kMostRunBytes);
  EXPECT_EQ(machine.kv.readers, KvSpill().readers);
  EXPECT_GT(machine.kv.rate, 1e5);
  EXPECT_GT(machine.memory.all, 1e7);
  EXPECT_GT(machine.attention_f16.row_bytes.one, 1e6);
  EXPECT_GT(machine.call_seconds, 0);
  EXPECT_GT(machine.small_read_seconds, 0);
  EXPECT_LE(machine.compute_while_reading, 1);
  EXPECT_LE(machine.read_while_computing, 1);
  EXPECT_GT(machine.store.rate, 1e5);
  EXPECT_LE(machine.store.read_while_computing, 1);
  for (const double kept : {machine.hash_while_both, machine.sha256_while_both, machine.memory_while_both}) {
    EXPECT_GT(kept, 0);
    EXPECT_LE(kept, 1);
  }
}

// The real thing, once: it takes seconds. That it leaves its file alone in the state folder is a test of the
// process.
TEST_F(CalibrationTest, WhereTheStateFolderTakesNothingItIsMeasuredElsewhereAndNotKept) {
  const SystemClock clock;
  const std::string file = folder_.path() + "/file", elsewhere = folder_.path() + "/elsewhere";
  std::ofstream(file) << "no folder";
  std::filesystem::create_directory(elsewhere);
  CalibrationOptions options = quick();
  EXPECT_THROW(load_or_measure(clock, file, options), Error);
  options.elsewhere = elsewhere;
  int steps = 0;
  const Calibration calibration =
      load_or_measure(clock, file, options, false, [&](const std::string&) { ++steps; });
  EXPECT_TRUE(calibration.measured_now);
  EXPECT_GT(steps, 5);
  expect_all_measured(calibration.measurements);
  EXPECT_FALSE(calibration.key.build.empty());
  const std::optional<Calibration> read = parse_calibration(calibration_text(calibration));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->measurements, calibration.measurements);
  EXPECT_NE(calibration.note.find(elsewhere + " and not kept: " + file), std::string::npos)
      << calibration.note;
  EXPECT_TRUE(std::filesystem::is_empty(elsewhere));
}

TEST_F(CalibrationTest, TheDiskIsAFileThatIsThere) {
  const SystemClock clock;
  const std::string file = folder_.path() + "/weights";
  std::ofstream(file) << std::string(3u << 20, 'w');
  Measurements machine;
  DiskProbe::open_file(clock, file).measure(machine, 0.01);
  EXPECT_EQ(machine.disk.size(), 1u);
  for (const DiskRate& rate : machine.disk) EXPECT_GT(rate.rate, 1e5);
  EXPECT_EQ(machine.kv.bytes, KvFrames::kMostRunBytes);
  EXPECT_GT(machine.kv.rate, 1e5);
  EXPECT_THROW(DiskProbe::open_file(clock, folder_.path() + "/absent"), Error);
  std::ofstream(file) << "small";
  EXPECT_THROW(DiskProbe::open_file(clock, file), Error);
  const std::string absent = folder_.path() + "/absent";
  try {
    DiskProbe::make_scratch(clock, absent, 1u << 20);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_NE(std::string(error.what()).find(absent), std::string::npos);
  }
}

}  // namespace
}  // namespace caravan
