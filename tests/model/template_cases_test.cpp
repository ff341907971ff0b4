#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"
#include "model/chat_template.h"

namespace caravan {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kNow = 1795348800;  // 2026-11-22 12:00:00 UTC, a Sunday

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

// The input as it stands in the file: a parser could round its numbers.
std::string input_text(const std::string& file) {
  const std::string begin = "\"input\": ";
  const size_t start = file.find(begin) + begin.size();
  return file.substr(start, file.find("},\n\"groups\"", start) + 1 - start);
}

// Every case stands with what Jinja 3.1.6 gives, made once with that engine.
TEST(TemplateCases, RenderAsJinjaDoes) {
  const std::string file = read_file(CARAVAN_SOURCE_DIR "/tests/fixtures/templates/cases.json");
  const std::string input = input_text(file);
  const Json groups = Json::parse(file).at("groups");
  int count = 0;
  for (const auto& [group, cases] : groups.items()) {
    for (const Json& entry : cases) {
      const auto source = entry.at(0).get<std::string>();
      const std::string what = group + ": " + source;
      ++count;
      try {
        const std::string text = ChatTemplate::parse(source, "case").render(input, kNow);
        if (entry.at(1).is_null())
          ADD_FAILURE() << what << "\nrenders " << text << "\nwhere Jinja refuses";
        else
          EXPECT_EQ(text, entry.at(1).get<std::string>()) << what;
      } catch (const Error& error) {
        EXPECT_TRUE(entry.at(1).is_null()) << what << "\n" << error.message();
      }
    }
  }
  EXPECT_GE(count, 900);
}

}  // namespace
}  // namespace caravan
