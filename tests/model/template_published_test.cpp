#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.h"
#include "model/chat_template.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr int64_t kNow = 1795348800;  // 2026-11-22 12:00:00 UTC

fs::path shared_folder() {
  const char* named = std::getenv("CARAVAN_SHARED");
  return named ? named : CARAVAN_SOURCE_DIR "/../shared";
}

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

void check_case(const ChatTemplate& chat, const Json& entry, const std::string& what) {
  try {
    const std::string text = chat.render(entry.at("input").dump(), kNow);
    if (entry.contains("error"))
      ADD_FAILURE() << what << " renders where there should be an error";
    else
      EXPECT_EQ(text, entry.at("expected").get<std::string>()) << what;
  } catch (const Error& error) {
    EXPECT_TRUE(entry.contains("error")) << what << ": " << error.message();
  }
}

TEST(PublishedTemplates, RenderTheirConversationsAsGiven) {
  const fs::path folder = shared_folder() / "data" / "templates";
  if (!fs::exists(folder)) GTEST_SKIP() << "no folder " << folder << " (set CARAVAN_SHARED)";
  int templates = 0;
  int cases = 0;
  for (const auto& file : fs::directory_iterator(folder)) {
    if (file.path().extension() != ".jinja") continue;
    ++templates;
    const ChatTemplate chat = ChatTemplate::parse(read_file(file.path()), file.path().filename().string());
    fs::path given = file.path();
    given.replace_extension(".json");
    const Json entries = Json::parse(read_file(given)).at("cases");
    for (const Json& entry : entries) {
      ++cases;
      check_case(chat, entry, file.path().filename().string() + ", " + entry.at("name").get<std::string>());
    }
  }
  EXPECT_GE(templates, 51);
  EXPECT_EQ(cases, templates * 8);
}

TEST(PublishedTemplates, RenderTheDemoModelsOwn) {
  const fs::path path = shared_folder() / "demo_model" / "tokenizer_config.json";
  if (!fs::exists(path)) GTEST_SKIP() << "no file " << path << " (set CARAVAN_SHARED)";
  const auto source = Json::parse(read_file(path)).at("chat_template").get<std::string>();
  const ChatTemplate chat = ChatTemplate::parse(source, "demo");
  EXPECT_EQ(
      chat.render(R"({"bos_token": "<|begin|>", "add_generation_prompt": true, "messages": [
      {"role": "user", "content": " Tell me a tale. "}, {"role": "assistant", "content": "Once."},
      {"role": "user", "content": "Go on."}]})",
                  kNow),
      "<|begin|><|user|>Tell me a tale.<|end|><|assistant|>Once.<|end|><|user|>Go on.<|end|><|assistant|>");
}

}  // namespace
}  // namespace caravan
