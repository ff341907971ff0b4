#include "bench/weights_bench.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "base/bytes.h"
#include "base/cpu_seconds.h"
#include "base/error.h"
#include "bench/median.h"
#include "daemon/defaults.h"
#include "daemon/engine.h"
#include "daemon/model_library.h"
#include "daemon/model_plan.h"
#include "model/families.h"
#include "offload/planner.h"
#include "offload/read_rate.h"
#include "shards/store_import.h"
#include "shards/store_source.h"

namespace caravan {

namespace {

constexpr uint32_t kContext = 256;
constexpr int64_t kFreshSeconds = 30;  // so old may be what a prediction is made from

// The groups that every pass reads whole, tensors side by side as one run.
std::vector<Extent> runs_of(const Manifest& manifest) {
  std::vector<Extent> runs;
  for (const WeightGroup& group : manifest.groups) {
    if (group.id.kind == GroupId::Kind::kEmbed) continue;
    const size_t first = runs.size();
    for (const Tensor& tensor : group.tensors) {
      const Extent& extent = tensor.extent;
      // Padding between tensors is read along.
      constexpr uint64_t kGap = 4096;
      if (runs.size() > first && runs.back().file == extent.file && extent.offset >= runs.back().offset &&
          extent.offset <= runs.back().offset + runs.back().length + kGap)
        runs.back().length = std::max(runs.back().length, extent.offset + extent.length - runs.back().offset);
      else
        runs.push_back(extent);
    }
  }
  return runs;
}

// A ring of one that generates, one token after another.
class Decoder {
 public:
  Decoder(const Manifest& manifest, const EngineOptions& options)
      : engine_(manifest, options),
        spec_(engine_.spec()),
        context_(std::min(spec_.context, kContext)),
        layers_(engine_.host({1, spec_.layer_count() + 1}, context_,
                             {(context_ + 31) / 32, (context_ + 31) / 32}, {})),
        embed_(engine_.host({0, 1}, 1, {}, {})),
        output_(engine_.host({spec_.unit_count() - 1, spec_.unit_count()}, 1, {}, {})),
        row_(spec_.width),
        logits_(spec_.vocabulary) {}

  void token() {
    KvCache& sequences = layers_.stage->sequences();
    if (position_ == 0) sequences.open(kSequence);
    const TokenId id = (3 + position_ * 7919) % spec_.vocabulary;
    embed_.stage->embed({&id, 1}, row_.data());
    const StageRange range{kSequence, position_, 1};
    layers_.stage->run({&range, 1}, row_.data());
    output_.stage->output(row_.data(), 1, logits_.data());
    if (++position_ < context_) return;
    sequences.close(kSequence);
    position_ = 0;
  }
  const Engine& engine() const { return engine_; }

 private:
  static constexpr SequenceId kSequence{1};
  Engine engine_;
  const ModelSpec& spec_;
  const uint32_t context_;
  Engine::Hosted layers_, embed_, output_;
  std::vector<float> row_, logits_;
  uint32_t position_ = 0;
};

// One measurement.
struct Sample {
  double seconds_a_token = 0, bytes_a_token = 0, hidden = 0;
};

Sample sample(Decoder& decoder, const Clock& clock, double lasting) {
  const PagerCounters& pager = decoder.engine().pager().counters();
  const uint64_t bytes = pager.bytes_read.value(), busy = pager.read_busy_ns.value(),
                 waited = pager.waited_ns.value();
  const Time start = clock.now();
  uint32_t tokens = 0;
  do {
    decoder.token();
    ++tokens;
  } while (seconds(clock.now() - start) < lasting || tokens < 2);
  const double elapsed = seconds(clock.now() - start);
  const double reading = static_cast<double>(pager.read_busy_ns.value() - busy) / 1e9;
  const double computing = elapsed - static_cast<double>(pager.waited_ns.value() - waited) / 1e9;
  const double shorter = std::min(reading, computing);
  return {elapsed / tokens, static_cast<double>(pager.bytes_read.value() - bytes) / tokens,
          shorter > 0 ? std::clamp((reading + computing - elapsed) / shorter, 0.0, 1.0) : 1};
}

class WeightsBenchRun {
 public:
  WeightsBenchRun(const PagesBenchOptions& options, const Manifest& file, const std::string& folder,
                  const Clock& clock)
      : options_(options), file_(file), folder_(folder), clock_(clock), runs_(runs_of(file)) {}

  WeightsBench run() {
    const std::shared_ptr<ShardStore> store = open_shards(folder_);
    const Manifest stored = import(store);
    for (const double times : {2.0, 4.0}) {
      add_decode("file", file_, times);
      add_decode("store", stored, times);
    }
    for (const uint32_t readers : {1u, 2u, 4u}) add_reads(stored, readers);
    return std::move(bench_);
  }

 private:
  Manifest import(const std::shared_ptr<ShardStore>& store) {
    options_.step("copying the model into a store");
    ImportOptions import;
    import.copy = true;
    import.cancelled = options_.cancelled;
    const double before = cpu_seconds();
    const Time start = clock_.now();
    const ImportResult imported = import_model(*store, file_, import);
    const auto bytes = static_cast<double>(content_bytes(file_));
    bench_.import = {content_bytes(file_), bytes / seconds(clock_.now() - start),
                     (cpu_seconds() - before) / (bytes / 1e9)};
    return open_record(store, imported.record);
  }

  void add_decode(const std::string& from, const Manifest& manifest, double times) {
    options_.step(fmt::format("decode, {} times the RAM, from the {}", times, from));
    PagedDecode result;
    result.from = from;
    result.times_ram = times;
    result.ram = static_cast<uint64_t>(static_cast<double>(file_.bytes().count) / times);
    Config config = options_.config;
    config.ram = std::to_string(result.ram);
    config.context = kContext;
    EngineOptions engine = engine_options(config, 1);
    engine.memory = Bytes{result.ram};
    try {
      result.predicted_seconds = predicted(manifest, config);
      Decoder decoder(manifest, engine);
      decoder.token();
      measure_decode(decoder, result);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kOutOfMemory) throw;
      result.not_possible = error.message();
    }
    bench_.decodes.push_back(result);
  }

  void measure_decode(Decoder& decoder, PagedDecode& result) const {
    std::vector<double> token, bytes, raw, share, hidden;
    for (uint32_t i = 0; i < options_.repeats; ++i) {
      options_.check();
      raw.push_back(read_rate(file_.source, runs_, clock_, options_.lasting).rate);
      const Sample one = sample(decoder, clock_, options_.lasting);
      token.push_back(one.seconds_a_token);
      bytes.push_back(one.bytes_a_token);
      hidden.push_back(one.hidden);
      share.push_back(one.bytes_a_token / raw.back() / one.seconds_a_token);
    }
    result.seconds_a_token = median(token);
    result.bytes_a_token = median(bytes);
    result.raw_rate = median(raw);
    result.share = median(share);
    result.hidden = median(hidden);
  }

  // From what the machine was measured to do just now: disks of virtual machines change by half in minutes.
  double predicted(const Manifest& manifest, const Config& config) {
    const ModelSpec spec = read_spec(manifest);
    const auto progress = [this](const std::string& what) {
      if (!what.empty()) options_.step("calibrating: " + what);
    };
    const auto calibrate = [&](const CalibrationOptions& calibration) {
      const std::string folder = state_folder(options_.config);
      const auto kept = kept_calibration(folder, calibration_key(calibration.isa));
      const bool is_fresh = kept && clock_.unix_seconds() - kept->unix_seconds < kFreshSeconds;
      return load_or_measure(clock_, folder, calibration, !is_fresh, progress);
    };
    const ModelPlan made = plan_model(config, manifest, spec, 1, calibrate);
    return predict(made.pages.input, made.plan, 1, 1, kContext / 2).seconds;
  }

  ReadRate read(const Manifest& manifest, const std::vector<Extent>& runs, uint32_t readers) const {
    // A reader is a thread; the reader through io_uring would have the file alone.
    const PageReaderOptions reader{.allow_uring = false, .pieces_in_flight = 2 * readers};
    return read_rate(manifest.source, runs, clock_, options_.lasting, reader);
  }

  void add_reads(const Manifest& stored, uint32_t readers) {
    options_.step(fmt::format("groups read from the store, {} reader{}", readers, readers == 1 ? "" : "s"));
    const std::vector<Extent> stored_runs = runs_of(stored);
    std::vector<double> store, raw, share, processor, raw_processor;
    for (uint32_t i = 0; i < options_.repeats; ++i) {
      options_.check();
      const ReadRate file = read(file_, runs_, readers);
      const ReadRate one = read(stored, stored_runs, readers);
      raw.push_back(file.rate);
      raw_processor.push_back(file.processor_seconds_gb);
      store.push_back(one.rate);
      processor.push_back(one.processor_seconds_gb);
      share.push_back(one.rate / file.rate);
    }
    bench_.reads.push_back(
        {readers, median(store), median(raw), median(share), median(processor), median(raw_processor)});
  }

  const PagesBenchOptions& options_;
  const Manifest& file_;
  const std::string folder_;
  const Clock& clock_;
  const std::vector<Extent> runs_;
  WeightsBench bench_;
};

}  // namespace

WeightsBench run_weights_bench(const PagesBenchOptions& options, const Manifest& file,
                               const std::string& folder, const Clock& clock) {
  return WeightsBenchRun(options, file, folder, clock).run();
}

}  // namespace caravan
