#include "base/text_list.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "base/random.h"

namespace caravan {
namespace {

TEST(TextList, IsWhatWasPutIn) {
  SeededRandom random(3);
  std::vector<std::string> wanted;
  TextList list;
  for (size_t i = 0; i < 2000; ++i) {
    // Also empty texts, and texts with zero bytes.
    wanted.emplace_back(random.below(20), static_cast<char>(random.below(3)));
    list.push_back(wanted.back());
  }
  ASSERT_EQ(list.size(), wanted.size());
  size_t at = 0;
  for (const std::string_view text : list) EXPECT_EQ(text, wanted[at++]);
  EXPECT_EQ(at, wanted.size());
  for (size_t i = 0; i < wanted.size(); ++i) EXPECT_EQ(list[i], wanted[i]);
  EXPECT_EQ(list, TextList(wanted));
  list.push_back("");
  EXPECT_NE(list, TextList(wanted));
}

TEST(TextList, GivesMemoryBack) {
  TextList list;
  for (size_t i = 0; i < 1000; ++i) list.push_back("0123456789");
  const Bytes grown = list.memory();
  list.shrink_to_fit();
  EXPECT_LE(list.memory(), grown);
  EXPECT_GE(list.memory().count, 14000u);
  EXPECT_LE(list.memory().count, 14100u);
  list.clear();
  EXPECT_TRUE(list.empty());
  EXPECT_LE(list.memory().count, 32u);
}

}  // namespace
}  // namespace caravan
