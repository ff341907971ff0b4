#include "base/config.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "base/error.h"

namespace caravan {
namespace {

std::string message_of(std::string_view text) {
  try {
    parse_config(text, "my.toml");
  } catch (const Error& error) {
    return error.message();
  }
  return "taken";
}

TEST(Config, ReadsEveryKindOfValue) {
  const Config config = parse_config(R"(
threads = 4
peer_timeout_s = 2.5
kv_type = "f16"
exact = true
api = "[::1]:0"
cors_origins = ["https://a.example", "https://b.example"]
[prices]
currency = "USD"
kilowatt_hour = 1
)",
                                     "my.toml");
  EXPECT_EQ(config.threads, 4u);
  EXPECT_EQ(config.peer_timeout_s, 2.5);
  EXPECT_EQ(config.kv_type, "f16");
  EXPECT_TRUE(config.exact);
  EXPECT_EQ(config.api, "[::1]:0");
  EXPECT_EQ(config.cors_origins, (std::vector<std::string>{"https://a.example", "https://b.example"}));
  EXPECT_EQ(config.prices.currency, "USD");
  EXPECT_EQ(config.prices.kilowatt_hour, 1.0);
  EXPECT_EQ(config.codec, Config().codec);
}

TEST(Config, AnEmptyFileIsTheDefaults) {
  EXPECT_EQ(parse_config("", "my.toml"), Config());
  EXPECT_EQ(parse_config("[prices]\n", "my.toml"), Config());
}

TEST(Config, TheFileThatShipsNamesEveryKeyWithItsDefaultAndAComment) {
  const std::string path = CARAVAN_SOURCE_DIR "/configs/caravan.toml";
  EXPECT_EQ(load_config(path), Config());
  std::ifstream in(path);
  std::string table, before;
  std::vector<std::string> named;
  for (std::string line; std::getline(in, line); before = line) {
    if (line.starts_with("[")) table = line.substr(1, line.find(']') - 1) + ".";
    const size_t equals = line.find(" = ");
    if (line.starts_with("#") || equals == std::string::npos) continue;
    named.push_back(table + line.substr(0, equals));
    EXPECT_TRUE(before.starts_with("# ")) << line << " has no comment";
  }
  EXPECT_EQ(named, config_keys());
}

TEST(Config, AnUnknownKeyIsNamedWithItsLineAndTheNearestKnownOne) {
  EXPECT_EQ(message_of("\n\nthread = 2\n"), "my.toml:3: unknown key 'thread'; did you mean 'threads'?");
  EXPECT_EQ(message_of("peer_timeout = 2\n"),
            "my.toml:1: unknown key 'peer_timeout'; did you mean 'peer_timeout_s'?");
  EXPECT_EQ(message_of("[prices]\nkilowat_hour = 2\n"),
            "my.toml:2: unknown key 'prices.kilowat_hour'; did you mean 'prices.kilowatt_hour'?");
  EXPECT_EQ(message_of("[price]\nkilowatt_hour = 2\n").find("my.toml:1: unknown key 'price'"), 0u);
  EXPECT_EQ(message_of("banana = 2\n"), "my.toml:1: unknown key 'banana'");
  EXPECT_NE(message_of(std::string(100'000, 'k') + " = 1\n").find("unknown key 'kkk"), std::string::npos);
}

TEST(Config, AWrongTypeOrValueIsNamedWithItsLine) {
  EXPECT_EQ(message_of("threads = \"two\""), "my.toml:1: 'threads' must be an integer");
  EXPECT_EQ(message_of("threads = 2.0"), "my.toml:1: 'threads' must be an integer");
  EXPECT_EQ(message_of("threads = true"), "my.toml:1: 'threads' must be an integer");
  EXPECT_EQ(message_of("\nthreads = -1"), "my.toml:2: 'threads' is -1, and must be from 0 to 1024");
  EXPECT_EQ(message_of("threads = 9223372036854775807").find("my.toml:1: 'threads' is"), 0u);
  EXPECT_EQ(message_of("peer_timeout_s = \"10\""), "my.toml:1: 'peer_timeout_s' must be a number");
  EXPECT_EQ(message_of("peer_timeout_s = true"), "my.toml:1: 'peer_timeout_s' must be a number");
  EXPECT_EQ(message_of("peer_timeout_s = nan").find("my.toml:1: 'peer_timeout_s' is nan"), 0u);
  EXPECT_EQ(message_of("exact = 1"), "my.toml:1: 'exact' must be true or false");
  EXPECT_EQ(message_of("api = 8080"), "my.toml:1: 'api' must be a string");
  EXPECT_EQ(message_of("codec = \"f64\""), "my.toml:1: 'codec' is 'f64', and must be one of: f32 bf16 int8");
  EXPECT_EQ(message_of("codec = \"\""), "my.toml:1: 'codec' is '', and must be one of: f32 bf16 int8");
  EXPECT_EQ(message_of("cors_origins = \"*\""), "my.toml:1: 'cors_origins' must be an array of strings");
  EXPECT_EQ(message_of("cors_origins = [1]"), "my.toml:1: 'cors_origins' must be an array of strings");
  EXPECT_EQ(message_of("prices = 3"), "my.toml:1: 'prices' must be a table");
  EXPECT_EQ(message_of("[threads]\n").find("my.toml:1: 'threads' must be an integer"), 0u);
}

TEST(Config, WhatIsNoTomlIsNamedWithItsLine) {
  EXPECT_EQ(message_of("threads = 1\nthreads = = 2\n").find("my.toml:2: "), 0u);
  EXPECT_EQ(message_of("threads = 1\nthreads = 2\n").find("my.toml:2: "), 0u);
  EXPECT_EQ(message_of(std::string("threads = 2\n[\0\2k]\n", 17)).find("my.toml:2: the control byte 0"), 0u);
  EXPECT_EQ(message_of("\nname\xef\xbb\xbb = 1\n").find("my.toml:2: "), 0u);
  EXPECT_NE(message_of("api = \"\xff\"\n"), "taken");
  EXPECT_NE(message_of("a = " + std::string(100'000, '[')), "taken");
  EXPECT_NE(message_of(std::string((1u << 20) + 1, '\n')), "taken");
}

TEST(Config, AMissingFileIsAnErrorThatNamesIt) {
  try {
    load_config("/nowhere/caravan.toml");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kNotFound);
    EXPECT_NE(error.message().find("/nowhere/caravan.toml"), std::string::npos);
  }
  EXPECT_THROW(load_config(CARAVAN_SOURCE_DIR), Error);
}

}  // namespace
}  // namespace caravan
