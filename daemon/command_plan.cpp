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
#include "model/families.h"
#include "offload/planner.h"

namespace caravan {

int command_plan(const CommandLine& line) {
  const Config& config = line.config;
  apply_log_level(config);
  const Manifest manifest = open_model(line.model, line.config);
  const ModelSpec spec = read_spec(manifest);
  const std::string folder = state_folder(config);
  ModelPlanOptions options;
  options.engine = engine_options(config, 1);
  options.budgets = budgets_of(config, folder);
  options.context = context_of(config, spec);
  options.sequences = line.sequences;
  const SystemClock clock;
  CalibrationOptions calibration_options;
  calibration_options.isa = config.isa;
  const Calibration calibration =
      load_or_measure(clock, folder, calibration_options, false, calibration_progress());
  end_calibration_progress(calibration);
  const ModelPages pages =
      model_pages(manifest, spec, {0, spec.unit_count()}, calibration.measurements, options);
  const Plan plan = plan_pages(pages.input);
  const std::optional<Prediction> peer = with_another_peer(manifest, spec, calibration.measurements, options);
  if (line.json)
    std::printf("%s\n", plan_json(pages, plan, peer).c_str());
  else
    std::printf("%s", plan_picture(manifest, pages, plan, peer).c_str());
  return 0;
}

}  // namespace caravan
