#include "daemon/child_flags.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "daemon/defaults.h"

namespace caravan {

std::string child_model(const std::string& model) {
  std::error_code error;
  return std::filesystem::exists(model, error) ? std::filesystem::absolute(model).string() : model;
}

std::vector<std::string> child_flags(const Config& config) {
  // An imported model is in the store of this process, not in the child's.
  std::vector<std::string> flags = {"--until-eof",    "--library",     state_folder(config), "--kv-type",
                                    config.kv_type,   "--isa",         config.isa,           "--log",
                                    config.log_level, "--no-calibrate"};
  if (config.exact) flags.push_back("--exact");
  if (config.threads > 0) flags.insert(flags.end(), {"--threads", std::to_string(config.threads)});
  for (const auto& [flag, value] : {std::pair{"--ram", &config.ram},
                                    {"--kv-ram", &config.kv_ram},
                                    {"--disk", &config.disk},
                                    {"--archive-day", &config.archive_day}})
    if (!value->empty()) flags.insert(flags.end(), {flag, *value});
  return flags;
}

}  // namespace caravan
