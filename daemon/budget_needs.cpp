#include "daemon/budget_needs.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/limits.h"
#include "cache/kv_cache.h"
#include "daemon/engine.h"
#include "daemon/local_head_runner.h"
#include "daemon/model_text.h"
#include "model/stage.h"
#include "model/weights.h"
#include "offload/pager.h"
#include "offload/plan.h"

namespace caravan {

namespace {

// Blocks on disk that are of use, to one that waits to be given back (KvMover compacts at half).
constexpr uint64_t kDiskOverhead = 2;

uint64_t ram_for(uint64_t bytes) {
  Budgets budgets;
  budgets.headroom_divisor = kHeadroomShare;
  return budgets.ram_for(bytes);
}

uint64_t ram_of(const BudgetNeeds& needs, uint64_t kv) {
  return ram_for(std::max(needs.beside_kv + kv, needs.beginning));
}

// As Engine::measure_layer_ns does.
uint64_t measuring_bytes(const Manifest& manifest, const ModelSpec& spec, const EngineOptions& options,
                         Pager& pager) {
  const UnitSpan first{1, 2};
  StageOptions stage;
  stage.span = first;
  stage.context = Engine::kMeasuredRows;
  stage.max_rows = options.max_rows;
  return engine_scratch(spec, options).count + Stage::scratch_bytes(spec, stage).count +
         pager.least_bytes(ModelWeights::page_specs(manifest, spec, first)) +
         KvCache::block_bytes(kv_layers(spec, first), options.kv_type).count;
}

// Readable, and exact enough to be typed again.
std::string exact(uint64_t bytes) {
  return fmt::format("{} ({} bytes)", to_string(Bytes{bytes}), bytes);
}

// What is lacking of disk, and what would do without any.
std::string refuse_disk(const EngineOptions& options, const LeastBudgets& least, std::string_view what) {
  std::string instead;
  if (options.memory.count < least.ram_without_disk) instead = "--ram " + exact(least.ram_without_disk);
  if (options.kv_memory && options.kv_memory->count < least.kv_ram_without_disk)
    instead += (instead.empty() ? "--kv-ram " : " and --kv-ram ") + exact(least.kv_ram_without_disk);
  const std::string archive = options.archive.on() ? fmt::format(", beside an archive of {} (--archive)",
                                                                 to_string(options.archive.limit))
                                                   : "";
  return fmt::format(
      "of disk {} are left for KV that does not fit into memory{}: {} would hold all of it, the least --disk "
      "for "
      "{} is {}",
      to_string(options.kv_disk), archive, instead, what,
      exact(options.disk_flag(Bytes{least.kv_disk}).count));
}

}  // namespace

uint64_t KvNeeds::blocks_on_disk(Bytes disk) const {
  return block_bytes == 0 ? 0 : disk.count / block_bytes / (kDiskOverhead + 1) * kDiskOverhead;
}

bool KvNeeds::can_spill(Bytes disk) const {
  return blocks_on_disk(disk) >= std::max<uint64_t>(blocks, KvCache::kLeastFrames + 1);
}

uint64_t KvNeeds::spilling() const {
  return KvCache::kLeastFrames * block_bytes + staging_bytes;
}

uint64_t KvNeeds::disk() const {
  const uint64_t most = std::max<uint64_t>(blocks, KvCache::kLeastFrames + 1);
  return (most + kDiskOverhead - 1) / kDiskOverhead * (kDiskOverhead + 1) * block_bytes;
}

uint64_t KvNeeds::least(Bytes disk) const {
  return can_spill(disk) ? std::min(whole(), spilling()) : whole();
}

std::vector<KvLayerShape> kv_layers(const ModelSpec& spec, UnitSpan span) {
  std::vector<KvLayerShape> layers;
  for (uint32_t unit = std::max(span.first, 1u); unit < std::min(span.last, spec.layer_count() + 1); ++unit)
    layers.push_back(
        {spec.layers[unit - 1].attention.shape.kv_heads, spec.layers[unit - 1].attention.shape.head_width});
  return layers;
}

KvNeeds kv_needs(const std::vector<KvLayerShape>& layers, uint32_t context, KvType type, bool archived) {
  return {(uint64_t{context} + limits::kKvBlockPositions - 1) / limits::kKvBlockPositions,
          KvCache::block_bytes(layers, type).count, KvCache::staging_bytes(layers, type).count, archived};
}

BudgetNeeds budget_needs(const Manifest& manifest, const ModelSpec& spec, const EngineOptions& options,
                         const HostedPart& part, uint32_t context) {
  const SystemClock clock;
  Pager pager(manifest.source, clock, nullptr);
  std::vector<PageSpec> pages = ModelWeights::page_specs(manifest, spec, part.layers);
  const uint32_t last = spec.unit_count();
  if (part.ends)
    for (PageSpec& page : ModelWeights::page_specs(manifest, spec, {last - 1, last}))
      pages.push_back(std::move(page));
  StageOptions stage;
  stage.span = part.layers;
  stage.context = context;
  stage.max_rows = options.max_rows;
  BudgetNeeds needs;
  needs.beside_kv = engine_scratch(spec, options).count + Stage::scratch_bytes(spec, stage).count +
                    pager.least_bytes(std::move(pages));
  if (part.ends) needs.beside_kv += (text_memory(manifest) + LocalHeadRunner::scratch_bytes(spec)).count;
  needs.beginning =
      part.measured ? measuring_bytes(manifest, spec, options, pager) : engine_scratch(spec, options).count;
  needs.kv = kv_needs(kv_layers(spec, part.layers), context, options.kv_type, options.archive.on());
  return needs;
}

LeastBudgets least_budgets(const EngineOptions& options, const BudgetNeeds& needs) {
  const KvNeeds& kv = needs.kv;
  const uint64_t whole = ram_of(needs, kv.whole());
  if (whole <= options.memory.count && (!options.kv_memory || kv.whole() <= options.kv_memory->count))
    return {};
  if (options.kv_places.empty() || kv.whole() <= kv.spilling())
    return {whole, kv.whole(), 0, whole, kv.whole()};
  return {ram_of(needs, kv.spilling()), kv.spilling(), kv.disk(), whole, kv.whole()};
}

LeastBudgets most_of(const LeastBudgets& a, const LeastBudgets& b) {
  return {std::max(a.ram, b.ram), std::max(a.kv_ram, b.kv_ram), std::max(a.kv_disk, b.kv_disk),
          std::max(a.ram_without_disk, b.ram_without_disk),
          std::max(a.kv_ram_without_disk, b.kv_ram_without_disk)};
}

std::string refuse_budgets(const EngineOptions& options, const LeastBudgets& least, std::string_view what) {
  std::string text;
  const bool lacks_disk = options.kv_disk.count < least.kv_disk;
  const auto add = [&text](const std::string& one) { text += (text.empty() ? "" : "; ") + one; };
  const auto compare = [&](std::string_view flag, Bytes is, uint64_t wanted) {
    if (is.count < wanted)
      add(fmt::format("{} is {}, the least for {} is {}{}", flag, to_string(is), what, exact(wanted),
                      lacks_disk ? " with KV on disk" : ""));
  };
  compare("--ram", options.memory, least.ram);
  if (options.kv_memory) compare("--kv-ram", *options.kv_memory, least.kv_ram);
  if (lacks_disk) add(refuse_disk(options, least, what));
  return text;
}

}  // namespace caravan
