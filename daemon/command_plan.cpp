// plan: where a model's weights would lie under a budget, and how fast that would be. Reads the manifest
// alone.
#include <cstdio>
#include <string>

#include "base/clock.h"
#include "daemon/calibrate.h"
#include "daemon/commands.h"
#include "daemon/defaults.h"
#include "daemon/model_library.h"
#include "daemon/model_plan.h"
#include "daemon/model_text.h"
#include "model/families.h"

namespace caravan {

int command_plan(const CommandLine& line) {
  apply_log_level(line.config);
  Manifest manifest = open_model_header(line.model, line.config);
  take_model_text(manifest);  // for its size
  const ModelSpec spec = read_spec(manifest);
  const SystemClock clock;
  const auto calibrate = [&](const CalibrationOptions& options) {
    Interruption interruption;  // asked for while it measures, and held back no longer
    return load_or_measure(clock, state_folder_to_read(line.config), options, false,
                           calibration_progress(interruption));
  };
  const ModelPlan made = plan_model(line.config, manifest, spec, line.sequences, calibrate);
  print_note(made.calibration);
  const std::optional<Prediction> peer =
      with_another_peer(manifest, spec, made.calibration.measurements, made.options);
  if (line.json)
    std::printf("%s\n", plan_json(made.pages, made.plan, peer).c_str());
  else
    std::printf("%s", plan_picture(manifest, made.pages, made.plan, peer).c_str());
  return 0;
}

}  // namespace caravan
