#include "base/config.h"

#include <toml++/toml.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>
#include <sstream>
#include <utility>
#include <variant>

#include "base/error.h"
#include "base/limits.h"

namespace caravan {

namespace {

using Strings = std::vector<std::string>;

// Where a key's value goes.
using Field = std::variant<uint32_t Config::*, bool Config::*, double Config::*, std::string Config::*,
                           Strings Config::*, double Prices::*, std::string Prices::*>;

struct Key {
  std::string_view name;
  Field field;
  double least = 0, most = 0;     // of a number
  std::string_view choices = "";  // of a string, separated by spaces; empty: any
};

constexpr double kMost32 = 4294967295.0;
constexpr double kMostPrice = 1e9;

const std::vector<Key>& keys() {
  static const std::vector<Key> table{
      {"log_level", &Config::log_level, 0, 0, "debug info warning error off"},
      {"state", &Config::state},
      {"threads", &Config::threads, 0, 1024},
      {"isa", &Config::isa, 0, 0, "auto scalar avx2 avx512"},
      {"exact", &Config::exact},
      {"kv_type", &Config::kv_type, 0, 0, "f32 f16"},
      {"context", &Config::context, 0, limits::kMaxContext},
      {"name", &Config::name},
      {"peer_timeout_s", &Config::peer_timeout_s, 0.1, 3600},
      {"codec", &Config::codec, 0, 0, "f32 bf16 int8"},
      {"api", &Config::api},
      {"api_key", &Config::api_key},
      {"cors_origins", &Config::cors_origins},
      {"listen", &Config::listen},
      {"max_sequences", &Config::max_sequences, 1, limits::kMaxSequences},
      {"prefill_rows", &Config::prefill_rows, 1, limits::kMaxRowsPerStep},
      {"prices.currency", &Prices::currency},
      {"prices.kilowatt_hour", &Prices::kilowatt_hour, 0, kMostPrice},
      {"prices.device_hour", &Prices::device_hour, 0, kMostPrice},
      {"prices.gigabyte_network", &Prices::gigabyte_network, 0, kMostPrice},
  };
  return table;
}

// Letters inserted, dropped or changed between two words.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t changed = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({changed, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

std::string_view nearest_key(std::string_view name) {
  return std::min_element(keys().begin(), keys().end(),
                          [&](const Key& a, const Key& b) {
                            return edit_distance(name, a.name) < edit_distance(name, b.name);
                          })
      ->name;
}

// One value of a file, and how its mistakes are told.
class Reader {
 public:
  Reader(std::string_view file, const Key& key, const toml::node& node)
      : file_(file), key_(key), node_(node) {}

  void read(uint32_t& value) const {
    const auto number = node_.value_exact<int64_t>();
    if (!number) refuse("must be an integer");
    check_range(static_cast<double>(*number));
    value = static_cast<uint32_t>(*number);
  }
  void read(bool& value) const {
    const auto flag = node_.value_exact<bool>();
    if (!flag) refuse("must be true or false");
    value = *flag;
  }
  void read(double& value) const {
    const auto number = node_.is_number() ? node_.value<double>() : std::nullopt;
    if (!number) refuse("must be a number");
    check_range(*number);
    value = *number;
  }
  void read(std::string& value) const {
    const auto text = node_.value_exact<std::string>();
    if (!text) refuse("must be a string");
    std::istringstream choices{std::string(key_.choices)};
    for (std::string choice; choices >> choice;)
      if (choice == *text) value = *text;
    if (key_.choices.empty()) value = *text;
    if (value != *text) refuse(fmt::format("is '{}', and must be one of: {}", *text, key_.choices));
  }
  void read(Strings& value) const {
    const toml::array* array = node_.as_array();
    if (!array) refuse("must be an array of strings");
    value.clear();
    for (const toml::node& element : *array) {
      const auto text = element.value_exact<std::string>();
      if (!text) refuse("must be an array of strings");
      value.push_back(*text);
    }
  }

 private:
  void check_range(double number) const {
    static_assert(limits::kMaxContext <= kMost32);
    if (!(number >= key_.least && number <= key_.most))
      refuse(fmt::format("is {}, and must be from {} to {}", number, key_.least, key_.most));
  }
  [[noreturn]] void refuse(std::string_view why) const {
    fail(ErrorCode::kInvalidArgument, "{}:{}: '{}' {}", file_, node_.source().begin.line, key_.name, why);
  }

  const std::string_view file_;
  const Key& key_;
  const toml::node& node_;
};

void store(const Key& key, const Reader& reader, Config& config) {
  std::visit(
      [&](auto field) {
        if constexpr (requires { config.*field; })
          reader.read(config.*field);
        else
          reader.read(config.prices.*field);
      },
      key.field);
}

bool is_table_of_keys(std::string_view name) {
  return std::any_of(keys().begin(), keys().end(), [&](const Key& key) {
    return key.name.size() > name.size() && key.name.starts_with(name) && key.name[name.size()] == '.';
  });
}

void read_table(const toml::table& table, const std::string& prefix, std::string_view file, Config& config) {
  for (const auto& [key, node] : table) {
    const std::string name = prefix + std::string(key.str());
    const auto known =
        std::find_if(keys().begin(), keys().end(), [&](const Key& one) { return one.name == name; });
    if (known != keys().end()) {
      store(*known, Reader(file, *known, node), config);
    } else if (is_table_of_keys(name)) {
      if (!node.is_table())
        fail(ErrorCode::kInvalidArgument, "{}:{}: '{}' must be a table", file, node.source().begin.line,
             name);
      read_table(*node.as_table(), name + ".", file, config);
    } else {
      // A long name would make the distances costly and the message useless.
      constexpr size_t kShownName = 64;
      fail(ErrorCode::kInvalidArgument, "{}:{}: unknown key '{}'; did you mean '{}'?", file,
           key.source().begin.line, name.substr(0, kShownName), nearest_key(name.substr(0, kShownName)));
    }
  }
}

}  // namespace

Config parse_config(std::string_view text, std::string_view file) {
  if (text.size() > limits::kMaxSettingsBytes)
    fail(ErrorCode::kLimit, "{}: a configuration has at most {} bytes", file, limits::kMaxSettingsBytes);
  Config config;
  try {
    read_table(toml::parse(text), "", file, config);
  } catch (const toml::parse_error& error) {
    fail(ErrorCode::kMalformed, "{}:{}: {}", file, error.source().begin.line, error.description());
  }
  return config;
}

Config load_config(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) fail(ErrorCode::kNotFound, "{}: cannot open the configuration", path);
  std::string text(limits::kMaxSettingsBytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (in.bad() || (in.fail() && !in.eof())) fail(ErrorCode::kIo, "{}: cannot read the configuration", path);
  text.resize(static_cast<size_t>(in.gcount()));
  return parse_config(text, path);
}

std::vector<std::string> config_keys() {
  std::vector<std::string> names;
  for (const Key& key : keys()) names.emplace_back(key.name);
  return names;
}

}  // namespace caravan
