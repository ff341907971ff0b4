#include "model/stop_matcher.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"

namespace caravan {
namespace {

// The text before the stop string that ends first (the longest of those), or all of it.
std::string cut_naively(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (text.substr(0, end).ends_with(stop)) longest = std::max(longest, stop.size());
    }
    if (longest > 0) return text.substr(0, end - longest);
  }
  return text;
}

std::string random_text(Random& random, size_t most) {
  std::string text(random.below(most + 1), ' ');
  for (char& c : text) c = static_cast<char>('a' + random.below(2));
  return text;
}

TEST(StopMatcher, FindsWhatANaiveSearchFindsHoweverTheTextIsCut) {
  SeededRandom random(29);
  int matches = 0;
  for (int round = 0; round < 5000; ++round) {
    std::vector<std::string> stops;
    for (size_t i = 1 + random.below(3); i > 0; --i) stops.push_back("a" + random_text(random, 7));
    const std::string text = random_text(random, 40);
    StopMatcher matcher(stops);
    std::string out;
    for (size_t at = 0; at < text.size();) {
      const size_t count = std::min<size_t>(random.below(5), text.size() - at);
      out += matcher.add(text.substr(at, count));
      at += count;
      // What is out stays out, so it must be the beginning of the answer.
      ASSERT_TRUE(cut_naively(text, stops).starts_with(out));
    }
    matches += matcher.matched().has_value();
    out += matcher.finish();
    ASSERT_EQ(out, cut_naively(text, stops)) << text;
  }
  EXPECT_GT(matches, 1000);
  EXPECT_LT(matches, 4900);
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBecomeAStop) {
  StopMatcher matcher({"\n\nUser:", "STOP"});
  EXPECT_EQ(matcher.add("Hello"), "Hello");
  EXPECT_EQ(matcher.add(" world\n"), " world");
  EXPECT_EQ(matcher.add("again\n\nUs"), "\nagain");
  EXPECT_EQ(matcher.add("age"), "\n\nUsage");
  EXPECT_EQ(matcher.add(" ST"), " ");
  EXPECT_FALSE(matcher.matched());
  EXPECT_EQ(matcher.add("OP and more"), "");
  EXPECT_EQ(matcher.matched(), 1u);
  EXPECT_EQ(matcher.add("more"), "");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, GivesOutTheRestWhenNothingMatched) {
  StopMatcher matcher({"abc"});
  EXPECT_EQ(matcher.add("xab"), "x");
  EXPECT_EQ(matcher.finish(), "ab");
  StopMatcher none({});
  EXPECT_EQ(none.add("anything"), "anything");
  EXPECT_EQ(none.finish(), "");
}

TEST(StopMatcher, RefusesWhatCannotBeMeant) {
  EXPECT_THROW(StopMatcher({"a", ""}), Error);
  EXPECT_THROW(StopMatcher({std::string(2000, 'a')}), Error);
  EXPECT_THROW(StopMatcher(std::vector<std::string>(17, "a")), Error);
}

}  // namespace
}  // namespace caravan
