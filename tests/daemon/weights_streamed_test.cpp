#include "daemon/weights_streamed.h"

#include <gtest/gtest.h>

namespace caravan {
namespace {

TEST(WeightsStreamed, PromptAndTokensAreToldApart) {
  WeightsStreamed streamed;
  streamed.begin({1000, 500, 500});  // the first fill, all of it waited for
  EXPECT_FALSE(streamed.prompt().hidden()) << "nothing was read";
  streamed.add_tokens(1, {3000, 700, 510});
  streamed.add_tokens(2, {4000, 800, 600});
  streamed.end({5000, 900, 650});
  EXPECT_EQ(streamed.prompt().bytes, 2000u);
  EXPECT_DOUBLE_EQ(streamed.prompt().hidden().value(), 0.95);
  ASSERT_TRUE(streamed.tokens());
  EXPECT_EQ(streamed.tokens()->bytes, 2000u);
  EXPECT_DOUBLE_EQ(streamed.tokens()->hidden().value(), 0.3);
}

TEST(WeightsStreamed, OneTokenOrNoneIsOfThePrompt) {
  for (const size_t tokens : {0u, 1u}) {
    WeightsStreamed streamed;
    streamed.begin({});
    if (tokens > 0) streamed.add_tokens(tokens, {3000, 700, 900});
    streamed.end({3000, 700, 900});
    EXPECT_EQ(streamed.prompt().bytes, 3000u);
    EXPECT_DOUBLE_EQ(streamed.prompt().hidden().value(), 0) << "waited for longer than it was read";
    EXPECT_FALSE(streamed.tokens());
  }
}

}  // namespace
}  // namespace caravan
