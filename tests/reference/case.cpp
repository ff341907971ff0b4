#include "tests/reference/case.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "shards/safetensors.h"

namespace caravan {

namespace {

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  CHECK(in.good());
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

}  // namespace

std::string model_type(const std::filesystem::path& folder) {
  std::ifstream in(folder / "config.json", std::ios::binary);
  const auto json = nlohmann::json::parse(in, nullptr, false);
  if (!json.is_object() || !json.contains("model_type") || !json["model_type"].is_string()) return "";
  return json["model_type"].get<std::string>();
}

ReferenceCase read_case(const std::filesystem::path& folder) {
  const auto json = nlohmann::json::parse(read_file(folder / "case.json"));
  return {json.at("inputs").get<std::vector<std::vector<TokenId>>>(),
          json.at("greedy").get<std::vector<std::vector<TokenId>>>()};
}

struct Expected::State {
  std::string bytes;
  std::map<std::string, SafetensorsEntry> entries;
};

Expected::Expected(const std::filesystem::path& folder) : state_(std::make_unique<State>()) {
  state_->bytes = read_file(folder / "expected.safetensors");
  for (SafetensorsEntry& entry : read_safetensors(std::as_bytes(std::span(state_->bytes)), folder.string()))
    state_->entries.emplace(entry.name, entry);
}

Expected::~Expected() = default;

std::vector<float> Expected::tensor(const std::string& name) const {
  const SafetensorsEntry& entry = state_->entries.at(name);
  CHECK(entry.dtype == "F32");
  std::vector<float> values(entry.bytes / sizeof(float));
  std::memcpy(values.data(), state_->bytes.data() + entry.offset, entry.bytes);
  return values;
}

double worst_row(const std::vector<float>& a, const std::vector<float>& b, size_t width) {
  CHECK(a.size() == b.size());
  CHECK(a.size() % width == 0u);
  double worst = 0;
  for (size_t row = 0; row < a.size(); row += width) {
    double difference = 0, norm = 0;
    for (size_t i = row; i < row + width; ++i) {
      difference += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
      norm += double{b[i]} * b[i];
    }
    const double relative = std::sqrt(difference / std::max(norm, 1e-60));
    if (!(relative <= worst)) worst = relative;  // NaN counts as worst
  }
  return worst;
}

std::filesystem::path shared_folder() {
  const char* given = std::getenv("CARAVAN_SHARED");
  return given ? std::filesystem::path(given) : std::filesystem::path(CARAVAN_SOURCE_DIR) / "../shared";
}

std::vector<float> read_floats(const std::filesystem::path& path) {
  const std::string bytes = read_file(path);
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

GreedyCase read_greedy_case(const std::filesystem::path& path) {
  const auto json = nlohmann::json::parse(read_file(path));
  return {json.at("prompt_ids").get<std::vector<TokenId>>(), json.at("ids").get<std::vector<TokenId>>(),
          json.at("margins").get<std::vector<double>>()};
}

}  // namespace caravan
