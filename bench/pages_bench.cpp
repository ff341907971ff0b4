#include "bench/pages_bench.h"

#include "base/bytes.h"
#include "base/error.h"
#include "daemon/defaults.h"
#include "daemon/kv_folder.h"
#include "daemon/model_library.h"
#include "daemon/process_folder.h"

namespace caravan {

PagesBench run_pages_bench(const PagesBenchOptions& options, const Clock& clock, Random& random) {
  const std::string state = state_folder(options.config);
  // Told before the parts ahead of the restarts take their minutes.
  if (!options.config.archive.empty() &&
      parse_budget("--archive", options.config.archive, Bytes{disk_total_bytes(state)}).count == 0)
    fail(ErrorCode::kInvalidArgument,
         "with --archive 0 a server keeps no archive, from which it could restart");
  const Manifest model = open_model(options.model, options.config);
  PagesBench bench;
  bench.model = model.name;
  const auto folder = [&] { return ProcessFolder(state, "bench-"); };
  // One part at a time has its files on the disk.
  {
    const ProcessFolder own = folder();
    bench.weights = run_weights_bench(options, model, own.path(), clock);
  }
  {
    const ProcessFolder own = folder();
    bench.restart = run_restart_bench(options, model, own.path(), clock);
  }
  const ProcessFolder own = folder();
  bench.fetch = run_fetch_bench(options, model, own.path(), clock, random);
  return bench;
}

}  // namespace caravan
