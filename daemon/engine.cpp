#include "daemon/engine.h"

#include <algorithm>
#include <exception>
#include <string_view>
#include <utility>

#include "base/allocator.h"
#include "base/caught_error.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "compute/cpu/cpu_backend.h"
#include "compute/cpu/cpu_device.h"
#include "daemon/memory_line.h"
#include "model/families.h"
#include "model/weights.h"
#include "shards/weights_id.h"

namespace caravan {

namespace {

cpu::Isa parse_isa(const std::string& name) {
  if (name == "auto") return cpu::Isa::kBest;
  if (name == "avx512") return cpu::Isa::kAvx512;
  if (name == "avx2") return cpu::Isa::kAvx2;
  if (name == "scalar") return cpu::Isa::kScalar;
  fail(ErrorCode::kInvalidArgument, "\"{}\" is no instruction set; known are auto, avx512, avx2, scalar",
       name);
}

CpuBackendOptions backend_options(const ModelSpec& spec, const EngineOptions& options) {
  CpuBackendOptions backend;
  backend.threads = options.threads;
  backend.isa = parse_isa(options.isa);
  backend.activations = options.exact ? Activations::kF32 : Activations::kInt8;
  backend.max_rows = options.max_rows;
  backend.max_width = spec.width;
  for (const LayerSpec& layer : spec.layers) {
    const HeadShape& shape = layer.attention.shape;
    backend.max_width = std::max(backend.max_width, shape.heads * shape.head_width);
    backend.max_head_width = std::max(backend.max_head_width, shape.head_width);
    backend.max_feed_forward = std::max(backend.max_feed_forward, layer.feed_forward.width);
    backend.max_experts = std::max(backend.max_experts, layer.feed_forward.experts);
  }
  return backend;
}

Bytes rows_bytes(const ModelSpec& spec, const EngineOptions& options) {
  return {2 * uint64_t{options.max_rows} * spec.width * sizeof(float)};
}

// Of KV on disk beside those that are of use, at most, where these are few.
constexpr uint64_t kBlocksInPassing = 32;

// A guess where the system does not tell.
Bytes of_the_machine(std::string_view name) {
  return memory_line("/proc/meminfo", name).value_or(Bytes{uint64_t{1} << 30});
}

}  // namespace

Bytes engine_scratch(const ModelSpec& spec, const EngineOptions& options) {
  return CpuBackend::scratch_bytes(backend_options(spec, options)) + rows_bytes(spec, options);
}

Engine::Engine(Manifest manifest, const EngineOptions& options)
    : options_(options),
      manifest_(std::move(manifest)),
      spec_(read_spec(manifest_)),
      weights_id_(caravan::weights_id(manifest_)),
      budget_("--ram", {options.memory.count - options.memory.count / kHeadroomShare}),
      device_(std::make_unique<CpuDevice>()) {
  keep_freed_memory(options.memory);
  // Before anything is allocated by the spec's sizes, and before a ring forms that could only fail.
  check_weights(manifest_, spec_);
  if (manifest_.tokenizer_made)
    text_ = budget_.reserve(MemoryTag::kScratch, manifest_.tokenizer_made->memory);
  auto backend = std::make_unique<CpuBackend>(backend_options(spec_, options), budget_);
  rows_ = budget_.reserve(MemoryTag::kScratch, rows_bytes(spec_, options));
  isa_name_ = backend->isa_name();
  counters_ = &backend->counters();
  backend_ = std::move(backend);
  pager_ =
      std::make_unique<Pager>(manifest_.source, clock_, &budget_, PagerOptions{.limit = {weights_room(0)}});
}

Engine::~Engine() = default;

std::string Engine::numerics_class() const {
  return std::string("cpu,") + (options_.exact ? "f32" : "int8") + " activations";
}

std::string Engine::isa_name() const {
  return isa_name_;
}

StageOptions Engine::stage_options(UnitSpan span, uint32_t context, uint32_t kv_blocks,
                                   KvType kv_type) const {
  return {.span = span,
          .kv_type = kv_type,
          .context = context,
          .kv_blocks = kv_blocks,
          .max_rows = options_.max_rows};
}

uint64_t Engine::weights_room(uint64_t more) const {
  const uint64_t others = (budget_.used() - budget_.used(MemoryTag::kWeights)).count + more;
  return budget_.limit().count - std::min(budget_.limit().count, others);
}

BudgetNeeds Engine::needs(UnitSpan span, uint32_t context, KvType kv_type) const {
  BudgetNeeds needs;
  needs.beside_kv = (budget_.used() - budget_.used(MemoryTag::kWeights)).count +
                    Stage::scratch_bytes(spec_, stage_options(span, context, 0, kv_type)).count +
                    pager_->least_bytes(ModelWeights::page_specs(manifest_, spec_, span));
  needs.kv = kv_needs(kv_layers(spec_, span), context, kv_type, options_.archive.on());
  return needs;
}

KvRoom Engine::kv_room(UnitSpan span, uint32_t context, KvType kv_type, uint32_t wanted) const {
  const KvNeeds kv = kv_needs(kv_layers(spec_, span), context, kv_type, options_.archive.on());
  const uint64_t block = kv.block_bytes;
  if (block == 0) return {wanted, wanted};
  const bool can_spill = kv.can_spill(kv_disk());
  const uint64_t room =
      weights_room(Stage::scratch_bytes(spec_, stage_options(span, context, 0, kv_type)).count);
  const uint64_t weights = pager_->total_bytes() + ModelWeights::paged_bytes(manifest_, span).count;
  uint64_t most = std::max({room - std::min(room, weights), room / 4, kv.least(kv_disk()),
                            can_spill ? std::min(kv.whole(), room / 2) : kv.whole()});
  // What is left must do for the weights.
  const uint64_t least_weights = pager_->least_bytes(ModelWeights::page_specs(manifest_, spec_, span));
  most = std::min(most, room - std::min(room, least_weights));
  if (options_.kv_memory) most = std::min(most, options_.kv_memory->count);
  // An archive's blocks come through the staging, too.
  const uint64_t beside = kv.archived ? kv.staging_bytes : 0;
  const auto in_memory =
      static_cast<uint32_t>(std::min<uint64_t>(wanted, (most - std::min(most, beside)) / block));
  const auto frames = static_cast<uint32_t>((most - std::min(most, kv.staging_bytes)) / block);
  const auto blocks = static_cast<uint32_t>(std::min<uint64_t>(wanted, kv.blocks_on_disk(kv_disk())));
  if (!can_spill || blocks <= in_memory || frames < KvCache::kLeastFrames) return {in_memory, in_memory};
  return {blocks, std::min(frames, in_memory)};
}

KvSpill Engine::kv_places(UnitSpan span, KvRoom kv) const {
  KvSpill places;
  places.clock = &clock_;
  places.name = "no KV store";
  places.frames = kv.frames;
  places.first_layer = std::max(span.first, 1u) - 1;
  return places;
}

void Engine::open_spill(KvSpill& places, Hosted& hosted) {
  const std::lock_guard lock(kv_folder_mutex_);
  if (!kv_folder_) kv_folder_ = std::make_unique<KvFolder>(options_.kv_places);
  places.name = "the KV store " + kv_folder_->path();
  hosted.kv_store = kv_folder_->store();
  places.store = hosted.kv_store.get();
}

// Where KV needs no disk, but what idles need not keep its frames. Adds what that takes of memory to
// `beside`.
void Engine::open_idle_spill(KvSpill& places, Hosted& hosted, KvRoom kv, const KvNeeds& needs,
                             uint64_t least_weights, Bytes& beside) {
  // What waits to be erased, and what is written again for that, are few blocks, but not of a small disk.
  const uint64_t all = needs.block_bytes == 0 ? 0 : kv_disk().count / needs.block_bytes;
  const uint64_t on_disk =
      std::min(needs.blocks_on_disk(kv_disk()), all - std::min<uint64_t>(all, kBlocksInPassing));
  const uint64_t frames = kv.frames * needs.block_bytes, more = places.archive ? 0 : needs.staging_bytes;
  if (on_disk <= KvCache::kLeastFrames || weights_room(beside.count + frames + more) < least_weights) return;
  if (options_.kv_memory && frames + more > options_.kv_memory->count) return;
  const std::string without = places.name;
  try {
    open_spill(places, hosted);
    beside.count += more;
    if (on_disk < kv.blocks) places.store_blocks = static_cast<uint32_t>(on_disk);
  } catch (const std::exception&) {
    places.name = without;
    log_warning("kv_keeps_memory reason=\"{}\"", caught_error().message());
  }
}

void Engine::open_archive(KvSpill& places, const Lineage& lineage) {
  if (!std::exchange(tried_archive_, true)) {
    opened_archive_ = caravan::open_archive(options_.archive, clock_);
    archive_ = opened_archive_.get();
  }
  places.archive = opened_archive_.get();
  places.lineage = lineage;
}

MemoryStatus Engine::memory() const {
  const PagerCounters& weights = pager_->counters();
  return {budget_.limit().count,
          budget_.used(MemoryTag::kWeights).count,
          budget_.used(MemoryTag::kState).count,
          budget_.used(MemoryTag::kScratch).count,
          budget_.used(MemoryTag::kWire).count,
          weights.bytes_read.value(),
          static_cast<double>(weights.waited_ns.value()) * 1e-9};
}

void Engine::leave_disk() {
  left_disk_ = true;
  const std::lock_guard lock(kv_folder_mutex_);
  if (kv_folder_) kv_folder_->remove();
}

void Engine::make_room(Bytes more) {
  pager_->set_limit({weights_room(more.count)});
}

void Engine::take_room() {
  give_back_freed_memory();  // weights are about to take as much
  pager_->set_limit({weights_room(0)});
}

void Engine::settle_wire() {
  try {
    move_wire();
  } catch (const std::exception&) {
    // A head gives a little without; what is too much is given back the next time.
    log_debug("wire_not_settled reason=\"{}\"", caught_error().message());
  }
}

void Engine::move_wire() {
  const uint64_t wanted = wanted_wire_, has = wire_.bytes().count;
  if (wanted < has) {
    wire_.give_back(Bytes{has - wanted});
    return take_room();
  }
  uint64_t room = (budget_.limit() - budget_.used()).count;
  if (const uint64_t limit = pager_->limit().count, least = pager_->least_bytes();
      !pager_->mapped() && limit > least)
    room = std::max(room, (limit - least) / 2);
  const uint64_t more = std::min(wanted - has, room);
  if (more == 0) return;
  make_room(Bytes{more});
  wire_.merge(budget_.try_reserve(MemoryTag::kWire, Bytes{more}));
  if (wire_.bytes().count == has) take_room();  // others were faster
}

std::optional<KvSharing> Engine::share(UnitSpan span, KvRoom kv, Bytes state, Bytes block) {
  const uint64_t weights = pager_->total_bytes() + ModelWeights::paged_bytes(manifest_, span).count;
  if (weights <= weights_room(state.count)) return std::nullopt;
  if (block.count == 0 || kv.frames <= KvCache::kLeastFrames) return std::nullopt;
  return KvSharing{this, KvCache::kLeastFrames};
}

Engine::Hosted Engine::host(UnitSpan span, uint32_t context, KvRoom kv, const LoadProgress& progress,
                            std::optional<KvType> kv_type, std::optional<Lineage> lineage) {
  StageOptions options = stage_options(span, context, kv.blocks, kv_type.value_or(options_.kv_type));
  const std::vector<KvLayerShape> layers = kv_layers(spec_, span);
  const KvNeeds needs = kv_needs(layers, context, options.kv_type, options_.archive.on());
  const Bytes block{needs.block_bytes};
  Bytes beside = Stage::scratch_bytes(spec_, options);
  Hosted hosted;
  KvSpill places = kv_places(span, kv);
  places.counters = &kv_counters_;
  if (kv.spills()) open_spill(places, hosted);
  if (lineage && !layers.empty() && options_.archive.on()) open_archive(places, *lineage);
  if (places.store || places.archive) beside.count += needs.staging_bytes;
  if (!layers.empty()) kv_room_ = kv;
  give_back_freed_memory();  // of the stage before, and of what was measured
  options.sharing = share(span, kv, beside + Bytes{block.count * kv.frames}, block);
  if (options.sharing && !places.store)
    open_idle_spill(places, hosted, kv, needs,
                    pager_->least_bytes(ModelWeights::page_specs(manifest_, spec_, span)), beside);
  if (places.store || places.archive) options.spill = std::move(places);
  const uint32_t frames = options.sharing ? options.sharing->least : kv.frames;
  pager_->set_limit({weights_room(beside.count + block.count * frames)});
  hosted.weights = std::make_unique<ModelWeights>(manifest_, spec_, span, *pager_);
  hosted.stage = std::make_unique<Stage>(spec_, *hosted.weights, *backend_, *device_, budget_, options);
  uint64_t done = 0;
  const uint64_t total = pager_->preload_bytes();
  pager_->preload([&](uint64_t bytes) {
    done += bytes;
    if (progress) progress(std::min(done, total), total);
    return true;
  });
  return hosted;
}

uint64_t Engine::measure_layer_ns() {
  const Hosted hosted = host({1, 2}, kMeasuredRows, {1, 1}, {});
  const SequenceId probe{1};
  const SystemClock clock;
  std::vector<float> row(spec_.width, 0.01f);
  uint64_t best_ns = UINT64_MAX;
  hosted.stage->sequences().open(probe);
  // The first rows warm the caches; the fastest counts.
  for (uint32_t position = 0; position < kMeasuredRows; ++position) {
    const StageRange range{probe, position, 1};
    const Time start = clock.now();
    hosted.stage->run({&range, 1}, row.data());
    best_ns = std::min(best_ns, static_cast<uint64_t>((clock.now() - start).count()));
  }
  return best_ns;
}

Bytes default_memory(uint32_t sharers) {
  return {of_the_machine("MemAvailable:").count / 4 * 3 / std::max(1u, sharers)};
}

Bytes machine_memory() {
  return of_the_machine("MemTotal:");
}

}  // namespace caravan
