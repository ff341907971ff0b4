#include "daemon/http.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace caravan {
namespace {

TEST(HostPort, ReadsLiteralsOfBothFamilies) {
  EXPECT_EQ(parse_host_port("127.0.0.1:8080", "--api").to_string(), "127.0.0.1:8080");
  EXPECT_EQ(parse_host_port("[::1]:0", "--api").to_string(), "[::1]:0");
  EXPECT_EQ(parse_host_port(":65535", "--api").to_string(), "127.0.0.1:65535");
  EXPECT_EQ(parse_host_port("localhost:1", "--api").host, "127.0.0.1");
}

TEST(HostPort, RefusesTheRestNamingTheFlag) {
  for (const char* text :
       {"", "8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:8x", "::1:80",
        "[127.0.0.1]:80", "[]:80", "example.org:80", "1.2.3:80", "[::1:80"}) {
    try {
      parse_host_port(text, "--api");
      ADD_FAILURE() << text << " was taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(error.message().find("--api"), std::string::npos);
    }
  }
}

TEST(HostPort, KnowsLoopback) {
  for (const char* host : {"127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"})
    EXPECT_TRUE((HostPort{host, 0}).is_loopback()) << host;
  for (const char* host : {"0.0.0.0", "10.0.0.1", "::", "::2", "::ffff:10.0.0.1"})
    EXPECT_FALSE((HostPort{host, 0}).is_loopback()) << host;
}

TEST(Http, DecodesPercentEscapesAndLeavesTheRest) {
  EXPECT_EQ(percent_decoded("a%2Fb%41%"), "a/bA%");
  EXPECT_EQ(percent_decoded("%zz%4"), "%zz%4");
}

TEST(Http, ComparesSecrets) {
  EXPECT_TRUE(equal_in_constant_time("secret", "secret"));
  for (const char* other : {"", "secre", "secrets", "Secret", "secretsecret"}) {
    EXPECT_FALSE(equal_in_constant_time("secret", other)) << other;
    EXPECT_FALSE(equal_in_constant_time(other, "secret")) << other;
  }
  EXPECT_TRUE(equal_in_constant_time("", ""));
}

}  // namespace
}  // namespace caravan
