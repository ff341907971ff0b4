// The rules of the tree: who may include whom (the table in docs/ARCHITECTURE.md), which libraries stand
// where, lengths, words, layout.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

const fs::path kRoot = CARAVAN_SOURCE_DIR;
constexpr size_t kMaxFileLines = 600;
constexpr size_t kMaxFunctionLines = 70;

struct SourceFile {
  std::string path;  // relative to the root
  std::string folder;
  std::vector<std::string> lines;
};

std::vector<std::string> read_lines(const fs::path& path) {
  std::ifstream in(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

const std::vector<SourceFile>& sources() {
  static const std::vector<SourceFile> files = [] {
    std::vector<SourceFile> found;
    for (const char* folder : {"base", "store", "proto", "compute", "shards", "offload", "cache", "model",
                               "peers", "daemon", "tests", "bench"})
      for (const auto& entry : fs::recursive_directory_iterator(kRoot / folder)) {
        const std::string extension = entry.path().extension();
        if (extension == ".h" || extension == ".cpp")
          found.push_back({fs::relative(entry.path(), kRoot), folder, read_lines(entry.path())});
      }
    std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.path < b.path; });
    return found;
  }();
  return files;
}

std::set<std::string> words(const std::string& text) {
  std::set<std::string> found;
  std::stringstream in(text);
  for (std::string word; std::getline(in, word, ',');) {
    word.erase(std::remove_if(word.begin(), word.end(), [](char c) { return c == ' ' || c == '`'; }),
               word.end());
    if (!word.empty()) found.insert(word);
  }
  return found;
}

struct Layer {
  std::set<std::string> may_include;
  std::set<std::string> libraries;
};

// The rows of the table under "## Layers", as written: | `folder/` | what | may include | uses |
std::map<std::string, Layer> read_layers() {
  std::map<std::string, Layer> layers;
  bool inside = false;
  for (const std::string& line : read_lines(kRoot / "docs/ARCHITECTURE.md")) {
    if (line.rfind("## ", 0) == 0) inside = line == "## Layers";
    std::smatch match;
    static const std::regex row(R"(^\| `(\w+)/` \|(.*)\|(.*)\|(.*)\|$)");
    if (inside && std::regex_match(line, match, row)) layers[match[1]] = {words(match[3]), words(match[4])};
  }
  return layers;
}

// Which library of the table's last column an angle-bracket include belongs to; nothing for the standard and
// the system.
std::string library_of(const std::string& header) {
  static const std::vector<std::pair<std::string, std::string>> kPrefixes = {
      {"fmt/", "fmt"},
      {"spdlog/", "spdlog"},
      {"toml++", "toml++"},
      {"openssl/", "OpenSSL"},
      {"xxh", "xxHash"},
      {"rocksdb/", "RocksDB"},
      {"capnp/", "Cap'nProto"},
      {"kj/", "Cap'nProto"},
      {"nlohmann/", "JSON"},
      {"pcre2", "PCRE2"},
      {"utf8proc", "utf8proc"},
      {"zmq", "ZeroMQ"},
      {"sodium", "libsodium"},
      {"boost/", "Boost.AsioandBeast"},
      {"CLI/", "CLI11"},
      {"prometheus/", "prometheus-cpp"},
      {"liburing", "io_uring"},
      {"gtest/", "GoogleTest"},
      {"benchmark/", "GoogleBenchmark"}};
  for (const auto& [prefix, library] : kPrefixes)
    if (header.rfind(prefix, 0) == 0) return library;
  return "";
}

TEST(Tidy, FoldersIncludeOnlyWhatTheTableAllows) {
  const auto layers = read_layers();
  ASSERT_EQ(layers.size(), 10u) << "the table in docs/ARCHITECTURE.md is not read";
  static const std::regex quoted("^#include \"([^\"/]+)/([^\"]+)\"");
  for (const SourceFile& file : sources()) {
    if (file.folder == "tests" || file.folder == "bench") continue;
    const Layer& layer = layers.at(file.folder);
    for (const std::string& line : file.lines) {
      std::smatch match;
      if (line.rfind("#include \"", 0) != 0) continue;
      if (!std::regex_search(line, match, quoted)) {
        ADD_FAILURE() << file.path << ": " << line << " does not start at the root";
        continue;
      }
      const std::string folder = match[1];
      EXPECT_TRUE(folder == file.folder || layer.may_include.count("all") || layer.may_include.count(folder))
          << file.path << " includes " << folder << "/" << match[2];
    }
  }
}

TEST(Tidy, TheTableHasNoCycle) {
  const auto layers = read_layers();
  std::set<std::string> done;
  for (size_t round = 0; round < layers.size(); ++round)
    for (const auto& [folder, layer] : layers)
      if (std::all_of(layer.may_include.begin(), layer.may_include.end(),
                      [&](const std::string& other) { return done.count(other) || other == "all"; }))
        if (!layer.may_include.count("all") || done.size() + 1 == layers.size()) done.insert(folder);
  EXPECT_EQ(done.size(), layers.size());
}

TEST(Tidy, LibrariesStandWhereTheTableSaysAndInNoPublicHeader) {
  const auto layers = read_layers();
  static const std::regex angle("^#include <([^>]+)>");
  std::map<std::string, std::set<std::string>> places;
  for (const SourceFile& file : sources()) {
    if (file.folder == "tests" || file.folder == "bench") continue;
    for (const std::string& line : file.lines) {
      std::smatch match;
      if (!std::regex_search(line, match, angle)) continue;
      const std::string library = library_of(match[1]);
      if (library.empty()) continue;
      if (library == "fmt") continue;  // through base/error.h and base/log.h everywhere
      EXPECT_TRUE(layers.at(file.folder).libraries.count(library)) << file.path << " includes " << match[1];
      EXPECT_TRUE(file.path.ends_with(".cpp")) << file.path << " is a header and includes " << match[1];
      places[library].insert(file.path);
    }
  }
  EXPECT_FALSE(places.empty());
}

TEST(Tidy, HeadersAreGuardedOnce) {
  for (const SourceFile& file : sources())
    if (file.path.ends_with(".h")) {
      EXPECT_EQ(std::count(file.lines.begin(), file.lines.end(), "#pragma once"), 1) << file.path;
    }
}

// A file that includes its own header before anything else proves that the header stands alone; headers
// without such a file are compiled alone by the build.
TEST(Tidy, AFileIncludesItsOwnHeaderFirst) {
  std::set<std::string> headers;
  for (const SourceFile& file : sources())
    if (file.path.ends_with(".h")) headers.insert(file.path);
  size_t twins = 0;
  for (const SourceFile& file : sources()) {
    if (!file.path.ends_with(".cpp")) continue;
    const std::string own = file.path.substr(0, file.path.size() - 4) + ".h";
    if (!headers.count(own)) continue;
    ++twins;
    const auto first = std::find_if(file.lines.begin(), file.lines.end(),
                                    [](const std::string& line) { return line.rfind("#include", 0) == 0; });
    ASSERT_NE(first, file.lines.end()) << file.path;
    EXPECT_EQ(*first, "#include \"" + own + "\"") << file.path;
  }
  EXPECT_GT(twins, 100u);
}

TEST(Tidy, FilesAndFunctionsAreShort) {
  for (const SourceFile& file : sources()) {
    EXPECT_LE(file.lines.size(), kMaxFileLines) << file.path;
    // After formatting, a function outside a class opens on a line that starts in column 0 and ends with "{",
    // and closes with "}" in column 0.
    size_t start = 0;
    bool inside = false;
    for (size_t i = 0; i < file.lines.size(); ++i) {
      const std::string& line = file.lines[i];
      const bool opens = !line.empty() && line.back() == '{' && line[0] != ' ' && line[0] != '}' &&
                         line[0] != '#' && line.rfind("namespace", 0) != 0 && line.rfind("struct", 0) != 0 &&
                         line.rfind("class", 0) != 0 && line.rfind("enum", 0) != 0 &&
                         line.rfind("extern", 0) != 0 && line.rfind("union", 0) != 0 &&
                         line.find('=') == std::string::npos;
      if (!inside && opens) inside = true, start = i;
      if (inside && line == "}") {
        EXPECT_LE(i - start + 1, kMaxFunctionLines) << file.path << ":" << start + 1;
        inside = false;
      }
    }
  }
}

TEST(Tidy, NothingIsLeftUnfinishedOrPointsOutside) {
  // Spelled apart so that this file passes its own rule.
  const std::vector<std::string> banned = {
      "TO"
      "DO",
      "FIX"
      "ME",
      "XX"
      "X:",
      "/wo"
      "rk/",
      "/ho"
      "me/",
      "/ro"
      "ot/"};
  for (const SourceFile& file : sources())
    for (size_t i = 0; i < file.lines.size(); ++i)
      for (const std::string& word : banned)
        EXPECT_EQ(file.lines[i].find(word), std::string::npos)
            << file.path << ":" << i + 1 << " has " << word;
}

TEST(Tidy, EverySourceIsFormatted) {
  std::string command = "cd '" + kRoot.string() + "' && clang-format --dry-run -Werror";
  for (const SourceFile& file : sources()) command += " " + file.path;
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::string output;
  char buffer[4096];
  while (size_t count = fread(buffer, 1, sizeof buffer, pipe)) output.append(buffer, count);
  EXPECT_EQ(pclose(pipe), 0) << output.substr(0, 4000);
}

}  // namespace
