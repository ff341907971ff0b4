#include "daemon/calibrate_apart.h"

#include "base/log.h"
#include "daemon/calibrate.h"

namespace caravan {

std::optional<ChildProcess> calibrate_apart(const Config& config, const std::string& state) {
  if (kept_calibration(state, calibration_key(config.isa))) return std::nullopt;
  return ChildProcess("calibrate", own_program(),
                      {"calibrate", "--until-eof", "--state", state, "--isa", config.isa},
                      ChildProcess::Output::kNowhere);
}

void check_calibrated(const Config& config, const std::string& state, ChildProcess& process) {
  if (kept_calibration(state, calibration_key(config.isa))) return;
  log_warning("no_forecast reason=\"measuring this machine {}, and nothing of it was kept\"",
              process.ended().value_or("goes on"));
}

}  // namespace caravan
