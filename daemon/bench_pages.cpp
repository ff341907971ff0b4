#include "daemon/bench_pages.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "bench/cpu_seconds.h"
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
constexpr int kRepeats = 5;
constexpr double kLasting = 1.0;  // seconds of each measurement, at least

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// A folder of this process in the state folder, removed with all that is in it.
class ScratchState {
 public:
  explicit ScratchState(const std::string& state) : path_(state + "/bench-" + std::to_string(::getpid())) {
    std::error_code error;
    std::filesystem::create_directories(path_, error);
    if (error) fail(ErrorCode::kIo, "{}: {}; --state names another folder", path_, error.message());
  }
  ~ScratchState() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchState(const ScratchState&) = delete;
  ScratchState& operator=(const ScratchState&) = delete;
  const std::string& path() const { return path_; }

 private:
  const std::string path_;
};

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

// One measurement: tokens for about kLasting.
struct Sample {
  double seconds_a_token = 0, bytes_a_token = 0, hidden = 0;
};

Sample sample(Decoder& decoder, const Clock& clock) {
  const PagerCounters& pager = decoder.engine().pager().counters();
  const uint64_t bytes = pager.bytes_read.value(), busy = pager.read_busy_ns.value(),
                 waited = pager.waited_ns.value();
  const Time start = clock.now();
  uint32_t tokens = 0;
  do {
    decoder.token();
    ++tokens;
  } while (seconds(clock.now() - start) < kLasting || tokens < 2);
  const double elapsed = seconds(clock.now() - start);
  const double reading = static_cast<double>(pager.read_busy_ns.value() - busy) / 1e9;
  const double computing = elapsed - static_cast<double>(pager.waited_ns.value() - waited) / 1e9;
  const double shorter = std::min(reading, computing);
  return {elapsed / tokens, static_cast<double>(pager.bytes_read.value() - bytes) / tokens,
          shorter > 0 ? std::clamp((reading + computing - elapsed) / shorter, 0.0, 1.0) : 1};
}

class PagesBenchRun {
 public:
  PagesBenchRun(const Clock& clock, const CommandLine& line,
                const std::function<void(const std::string&)>& step)
      : clock_(clock),
        line_(line),
        step_(step),
        scratch_(state_folder(line.config)),
        file_(open_model(line.model, line.config)),
        runs_(runs_of(file_)) {}

  PagesBench run() {
    step_("copying the model into a store");
    const std::shared_ptr<ShardStore> store = open_shards(scratch_.path());
    const ImportResult imported = import_model(*store, file_, {.copy = true});
    const Manifest stored = open_record(store, imported.record);
    for (const double times : {2.0, 4.0}) {
      add_decode("file", file_, times);
      add_decode("store", stored, times);
    }
    for (const uint32_t in_flight : {1u, 2u, 4u, 8u}) add_reads(stored, in_flight);
    return std::move(bench_);
  }

 private:
  void add_decode(const std::string& from, const Manifest& manifest, double times) {
    step_(fmt::format("decode, {} times the RAM, from the {}", times, from));
    PagedDecode result;
    result.from = from;
    result.times_ram = times;
    result.ram = static_cast<uint64_t>(static_cast<double>(file_.bytes().count) / times);
    Config config = line_.config;
    config.ram = std::to_string(result.ram);
    config.context = kContext;
    EngineOptions options = engine_options(config, 1);
    options.memory = Bytes{result.ram};
    Decoder decoder(manifest, options);
    decoder.token();
    std::vector<double> token, bytes, raw, share, hidden;
    for (int i = 0; i < kRepeats; ++i) {
      raw.push_back(read_rate(file_.source, runs_, clock_, kLasting));
      const Sample one = sample(decoder, clock_);
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
    result.predicted_seconds = predicted(config);
    bench_.decodes.push_back(result);
  }

  double predicted(const Config& config) {
    const ModelSpec spec = read_spec(file_);
    const ModelPlan made = plan_model(clock_, config, file_, spec, state_folder(line_.config), 1,
                                      [this](const std::string& what) {
                                        if (!what.empty()) step_("calibrating: " + what);
                                      });
    return predict(made.pages.input, made.plan, 1, 1, kContext / 2).seconds;
  }

  void add_reads(const Manifest& stored, uint32_t in_flight) {
    step_(fmt::format("reads with {} in flight", in_flight));
    const std::vector<Extent> runs = runs_of(stored);
    const PageReaderOptions options{.allow_uring = false, .pieces_in_flight = 2 * in_flight};
    std::vector<double> store, raw, processor;
    for (int i = 0; i < kRepeats; ++i) {
      raw.push_back(read_rate(file_.source, runs_, clock_, kLasting, options));
      const double before = cpu_seconds();
      const Time start = clock_.now();
      store.push_back(read_rate(stored.source, runs, clock_, kLasting, options));
      const double bytes = store.back() * seconds(clock_.now() - start);
      processor.push_back((cpu_seconds() - before) / (bytes / 1e9));
    }
    bench_.reads.push_back({in_flight, median(store), median(raw), median(processor)});
  }

  const Clock& clock_;
  const CommandLine& line_;
  const std::function<void(const std::string&)>& step_;
  const ScratchState scratch_;
  const Manifest file_;
  const std::vector<Extent> runs_;
  PagesBench bench_;
};

}  // namespace

PagesBench run_pages_bench(const Clock& clock, const CommandLine& line,
                           const std::function<void(const std::string&)>& step) {
  return PagesBenchRun(clock, line, step).run();
}

}  // namespace caravan
