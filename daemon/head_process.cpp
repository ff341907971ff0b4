#include "daemon/head_process.h"

#include <future>
#include <utility>

#include "base/error.h"
#include "base/limits.h"
#include "daemon/archive_folder.h"
#include "daemon/archive_key.h"
#include "daemon/defaults.h"
#include "daemon/forecast.h"
#include "daemon/version.h"

namespace caravan {

namespace {

// Weights of each layer and the KV of one sequence.
std::vector<LayerCost> layer_costs(const Engine& engine, uint32_t context) {
  std::vector<LayerCost> costs(engine.spec().layer_count());
  for (const WeightGroup& group : engine.manifest().groups)
    if (group.id.kind != GroupId::Kind::kEmbed && group.id.kind != GroupId::Kind::kOutput)
      costs[group.id.layer].bytes += group.bytes().count;
  const uint64_t blocks = (context + limits::kKvBlockPositions - 1) / limits::kKvBlockPositions;
  for (uint32_t i = 0; i < costs.size(); ++i) {
    const HeadShape& shape = engine.spec().layers[i].attention.shape;
    costs[i].bytes +=
        blocks * KvCache::block_bytes({{shape.kv_heads, shape.head_width}}, engine.options().kv_type).count;
  }
  return costs;
}

}  // namespace

CodecId parse_codec(const std::string& name) {
  for (uint8_t i = 0; i < kCodecCount; ++i)
    if (caravan::name(static_cast<CodecId>(i)) == name) return static_cast<CodecId>(i);
  fail(ErrorCode::kInvalidArgument, "\"{}\" is no codec; known are f32, bf16, int8", name);
}

Hello make_hello(const Engine& engine, const Hash256& model, const std::string& name, uint64_t incarnation,
                 uint64_t layer_ns, std::vector<std::string> endpoints) {
  Hello hello;
  hello.name = name;
  hello.build = version_text();
  hello.numerics_class = engine.numerics_class();
  hello.weights = engine.weights_id();
  hello.model = model;
  hello.layers = engine.spec().layer_count();
  hello.incarnation = incarnation;
  // Weights are mapped from the file, so that what is offered is the budget for state and the page cache; and
  // state may lie on disk.
  hello.memory_bytes = engine.budget_limit().count + engine.manifest().bytes().count + engine.kv_disk().count;
  hello.layer_ns = layer_ns;
  hello.threads = engine.options().threads;
  hello.endpoints = std::move(endpoints);
  return hello;
}

HeadProcess::HeadProcess(EventLoop& loop, const Clock& clock, Random& random, const Config& config,
                         Manifest manifest, HeadProcessOptions options, LoadProgress progress)
    : options_(std::move(options)),
      text_(take_model_text(manifest)),
      engine_(std::make_unique<Engine>(std::move(manifest), engine_options(config, options_.sharers))),
      name_(model_name(config, engine_->manifest())),
      context_(context_of(config, engine_->spec())),
      // Inside one process a cut costs nothing to leave exact.
      codec_(options_.link ? parse_codec(config.codec) : CodecId::kF32) {
  NodeOptions node;
  node.self = options_.self;
  node.head = head_options(config, random);
  if (options_.host_layers) node.stage = stage_options(random);
  driver_ = std::make_unique<NodeDriver>(loop, clock, std::move(node));
  thread_ = std::make_unique<ComputeThread>();
  head_runner_ =
      std::make_unique<LocalHeadRunner>(*engine_, *thread_, progress, [this](LocalHeadRunner::Event event) {
        std::visit([this](auto&& done) { driver_->post(std::move(done)); }, std::move(event));
      });
  if (options_.host_layers)
    stage_runner_ = std::make_unique<LocalStageRunner>(
        *engine_, *thread_, clock, progress,
        [this, config](const StagePlan& plan) {
          return forecast_part(config, *engine_,
                               {plan.span, true, plan.context, static_cast<KvType>(plan.kv_type)});
        },
        [this](LocalStageRunner::Event event) {
          std::visit([this](auto&& done) { driver_->post(std::move(done)); }, std::move(event));
        });
  const ArchiveOptions& archive = engine_->options().archive;
  if (archive.on())
    remove_other_archives(archive.folder, options_.host_layers, options_.host_layers ? 0 : options_.sharers);
  else if (archive.unwanted)
    remove_other_archives(archive.folder, false, 0);
  HeadService::Options service;
  service.model_name = name_;
  service.family = engine_->spec().family;
  service.fingerprint = to_string(engine_->manifest().fingerprint());
  service.context = context_;
  service.vocabulary = engine_->spec().vocabulary;
  service.tokenizer = text_.tokenizer ? &*text_.tokenizer : nullptr;
  service.kv = &engine_->kv_counters();
  service.kv_archive = [this] { return engine_->archive(); };
  service.memory = [this] { return engine_->memory(); };
  service.self_name = options_.self_name;
  if (options_.link)
    service.own_units = forecast_part(config, *engine_, {{1, 1}, true, context_, engine_->options().kv_type});
  service_ = std::make_unique<HeadService>(*driver_, clock, std::move(service));
}

HeadProcess::~HeadProcess() {
  // Before requests end, and with them their sequences.
  if (stage_runner_) stage_runner_->finish_archiving(saving_);
  service_.reset();
  driver_->stop();
  engine_->leave_disk();
  thread_.reset();
}

void HeadProcess::finish_archiving() {
  if (!stage_runner_) return;
  stage_runner_->finish_archiving(saving_);
  std::promise<void> done;
  thread_->post([&done] { done.set_value(); });
  done.get_future().wait();
}

void HeadProcess::want_wire(Bytes bytes) {
  engine_->want_wire(bytes);
  // Peers come and go as they like: one job at a time, which does what was wished for last.
  if (settling_wire_.exchange(true)) return;
  thread_->post([this] {
    settling_wire_ = false;
    engine_->settle_wire();
  });
}

void HeadProcess::start() {
  NodeDriver::Parts parts{options_.link, stage_runner_.get(), head_runner_.get()};
  if (options_.kept)
    parts.keep_cuts = [this](const KeepCuts& keep) {
      save_cuts(*options_.kept, engine_->manifest().fingerprint(), keep.cuts);
    };
  driver_->start(std::move(parts));
}

HeadOptions HeadProcess::head_options(const Config& config, Random& random) const {
  HeadOptions head;
  RingOptions& ring = head.ring;
  ring.self = options_.self;
  random.fill(ring.id.bytes);
  ring.model = engine_->manifest().fingerprint();
  ring.numerics_class = engine_->numerics_class();
  ring.weights = engine_->weights_id();
  ring.layers = layer_costs(*engine_, context_);
  ring.mode = options_.cut;
  if (options_.kept) ring.earlier = load_cuts(*options_.kept, ring.model, engine_->spec().layer_count());
  ring.min_peers = options_.min_peers;
  ring.codec = codec_;
  ring.kv_type = static_cast<uint8_t>(engine_->options().kv_type);
  ring.context = context_;
  ring.max_sequences = config.max_sequences;
  ring.max_rows = engine_->options().max_rows;
  ring.awaited = options_.awaited;
  ring.timeout = from_seconds(config.peer_timeout_s);
  MembershipOptions& members = head.members;
  members.self = options_.self;
  members.ring = ring.id;
  members.name = options_.self_name;
  members.model = ring.model;
  members.layers = engine_->spec().layer_count();
  members.timeout = from_seconds(config.peer_timeout_s);
  members.heartbeat = std::min<Duration>(std::chrono::seconds(1), members.timeout / 4);
  head.scheduler.keep = true;
  if (engine_->options().archive.on()) head.archive_key = load_archive_key(state_folder(config), random);
  head.chunk_rows = std::min(config.prefill_rows, ring.max_rows);
  return head;
}

StageHostOptions HeadProcess::stage_options(Random& random) const {
  StageHostOptions stage;
  stage.self = options_.self;
  stage.head = options_.self;
  stage.awaited = options_.awaited;
  // Alone, no cut has to be weighed.
  const uint64_t layer_ns = options_.link ? engine_->measure_layer_ns() : 0;
  stage.hello = make_hello(*engine_, engine_->manifest().fingerprint(), options_.self_name, random.next(),
                           layer_ns, {});
  return stage;
}

}  // namespace caravan
