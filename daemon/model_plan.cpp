#include "daemon/model_plan.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/limits.h"
#include "base/share.h"
#include "cache/kv_cache.h"
#include "daemon/defaults.h"
#include "daemon/local_head_runner.h"
#include "daemon/model_text.h"
#include "model/families.h"
#include "offload/planner.h"
#include "shards/store_source.h"

namespace caravan {

namespace {

using Kind = GroupId::Kind;

// Calls of the back end a page, for their small cost each.
constexpr uint32_t kAttentionCalls = 6;
constexpr uint32_t kOtherCalls = 2;

// As the pager reads them.
uint64_t arena_bytes(const WeightGroup& group) {
  std::vector<Extent> extents;
  for (const Tensor& tensor : group.tensors) extents.push_back(tensor.extent);
  return Pager::buffer_bytes(extents);
}

class Builder {
 public:
  Builder(const Manifest& manifest, const ModelSpec& spec, const ModelPlanOptions& options)
      : manifest_(manifest), spec_(spec), options_(options) {}

  ModelPages build(UnitSpan span, const Measurements& measurements) {
    PlanInput& input = pages_.input;
    const bool is_stored = dynamic_cast<const StoreSource*>(manifest_.source.get()) != nullptr;
    input.may_map = !is_stored;
    input.measurements = is_stored ? measurements.reading_from_store() : measurements;
    input.attention =
        options_.engine.kv_type == KvType::kF32 ? measurements.attention_f32 : measurements.attention_f16;
    input.budgets = options_.budgets;
    input.threads = options_.engine.threads;
    input.context = options_.context;
    input.sequences = options_.sequences;
    input.prompt_rows = options_.prompt_rows > 0 ? options_.prompt_rows : options_.engine.max_rows;
    input.wire_bytes = options_.wire_bytes;
    input.block_positions = limits::kKvBlockPositions;
    const bool heads = span.first == 0 || options_.ends;
    const uint32_t end = spec_.unit_count();
    for (uint32_t unit = 0; unit < end; ++unit)
      if ((unit >= span.first && unit < span.last) || (options_.ends && (unit == 0 || unit + 1 == end)))
        add_unit(unit);
    input.block_bytes = KvCache::block_bytes(state_, options_.engine.kv_type).count;
    const uint64_t staging = KvCache::staging_bytes(state_, options_.engine.kv_type).count;
    input.may_spill =
        !options_.engine.kv_places.empty() && kv_of_all(state_).can_spill(options_.engine.kv_disk);
    // An archive's blocks come through the staging, too, whether or not KV spills.
    const bool archived = options_.engine.archive.on();
    input.staging_bytes = staging;
    input.staging_always = archived;
    StageOptions stage;
    stage.span = span;
    stage.kv_type = options_.engine.kv_type;
    stage.context = options_.context;
    stage.max_rows = options_.engine.max_rows;
    input.scratch_bytes = (engine_scratch(spec_, options_.engine) + Stage::scratch_bytes(spec_, stage)).count;
    // Of the head, which keeps the first unit.
    if (heads) input.scratch_bytes += (text_memory(manifest_) + LocalHeadRunner::scratch_bytes(spec_)).count;
    return std::move(pages_);
  }

 private:
  // Of every sequence.
  KvNeeds kv_of_all(const std::vector<KvLayerShape>& layers) const {
    KvNeeds kv = kv_needs(layers, options_.context, options_.engine.kv_type, options_.engine.archive.on());
    kv.blocks *= std::max(1u, options_.sequences);
    return kv;
  }

  void add_unit(uint32_t unit) {
    if (unit == 0) {
      PlanPage& page = add({Kind::kEmbed, 0, 0});
      page.use = PageUse::kRows;
      page.work.clear();
    } else if (unit == spec_.layer_count() + 1) {
      add({Kind::kOutput, 0, 0}).calls = kOtherCalls;
    } else {
      add_layer(unit - 1);
    }
  }

  void add_layer(uint32_t index) {
    const LayerSpec& layer = spec_.layers[index];
    const HeadShape& shape = layer.attention.shape;
    PlanPage& attention = add({Kind::kAttention, index, 0});
    attention.calls = kAttentionCalls;
    const std::vector<KvLayerShape> state{{shape.kv_heads, shape.head_width}};
    attention.state_bytes_position =
        static_cast<double>(KvCache::block_bytes(state, options_.engine.kv_type).count) /
        limits::kKvBlockPositions;
    attention.state_operations_position = 4.0 * shape.heads * shape.head_width;
    attention.state_window = layer.attention.window;
    state_.push_back(state[0]);
    add({Kind::kFeedForward, index, 0}).calls = kOtherCalls;
    const FeedForwardSpec& feed_forward = layer.feed_forward;
    for (uint32_t expert = 0; expert < feed_forward.experts; ++expert) {
      PlanPage& page = add({Kind::kExpert, index, expert});
      page.use = PageUse::kChosen;
      page.choice = index;
      page.uses_a_token = static_cast<double>(feed_forward.experts_per_token) / feed_forward.experts;
    }
  }

  PlanPage& add(GroupId id) {
    const WeightGroup* group = manifest_.find(id);
    if (!group) fail(ErrorCode::kMalformed, "{}: weight group {} is missing", manifest_.path, to_string(id));
    pages_.groups.push_back(id);
    pages_.bytes.push_back(group->bytes().count);
    PlanPage& page = pages_.input.pages.emplace_back();
    page.bytes = page.mapped_bytes = group->bytes().count;
    page.arena_bytes = arena_bytes(*group);
    for (const Tensor& tensor : group->tensors) {
      if (tensor.role == Role::kEmbedding) page.row_bytes = row_bytes(tensor.type, tensor.columns);
      if (tensor.rows > 1)
        page.work.push_back({tensor.type, tensor.extent.length, 2.0 * tensor.rows * tensor.columns});
    }
    return page;
  }

  const Manifest& manifest_;
  const ModelSpec& spec_;
  const ModelPlanOptions& options_;
  ModelPages pages_;
  std::vector<KvLayerShape> state_;
};

// As whoever would run it refuses it.
void refuse_small_budgets(const Manifest& manifest, const ModelSpec& spec, const ModelPlanOptions& options) {
  const HostedPart everything{{1, spec.layer_count() + 1}, true, false};
  BudgetNeeds needs = budget_needs(manifest, spec, options.engine, everything, options.context);
  needs.kv.blocks *= std::max(1u, options.sequences);
  uint64_t bytes = 0;
  if (!checked_multiply(needs.kv.blocks, needs.kv.block_bytes, bytes) || bytes > UINT64_MAX / 4)
    return;  // the planner refuses what is past counting
  const std::string what =
      options.sequences > 1 ? fmt::format("{} sequences of {} positions", options.sequences, options.context)
                            : "this model and context";
  const std::string refusal = refuse_budgets(options.engine, least_budgets(options.engine, needs), what);
  if (!refusal.empty()) fail(ErrorCode::kOutOfMemory, "{}", refusal);
}

// A half's part of a pass, while the other half's compute passes elsewhere.
Prediction half_of_pass(ModelPages half, double elsewhere) {
  half.input.elsewhere_seconds = elsewhere;
  return plan_pages(half.input).decode;
}

}  // namespace

ModelPages model_pages(const Manifest& manifest, const ModelSpec& spec, UnitSpan span,
                       const Measurements& measurements, const ModelPlanOptions& options) {
  return Builder(manifest, spec, options).build(span, measurements);
}

ModelPlan plan_model(const Config& config, const Manifest& manifest, const ModelSpec& spec,
                     uint32_t sequences, const Calibrate& calibrate) {
  ModelPlan made;
  made.options.engine = engine_options(config, 1);
  made.options.budgets.ram = made.options.engine.memory.count;
  made.options.budgets.kv_percent = parse_share(config.kv_ram);
  if (const auto kv = made.options.engine.kv_memory; kv && !made.options.budgets.kv_percent)
    made.options.budgets.kv_ram = kv->count;
  made.options.budgets.headroom_divisor = kHeadroomShare;
  made.options.context = context_of(config, spec);
  made.options.sequences = sequences;
  made.options.prompt_rows = std::min(config.prefill_rows, made.options.engine.max_rows);
  refuse_small_budgets(manifest, spec, made.options);
  CalibrationOptions calibration;
  calibration.isa = config.isa;
  std::error_code none;
  calibration.elsewhere = std::filesystem::temp_directory_path(none).string();
  made.calibration = calibrate(calibration);
  made.pages =
      model_pages(manifest, spec, {0, spec.unit_count()}, made.calibration.measurements, made.options);
  made.plan = plan_pages(made.pages.input);
  return made;
}

std::optional<Prediction> with_another_peer(const Manifest& manifest, const ModelSpec& spec,
                                            const Measurements& measurements,
                                            const ModelPlanOptions& options) {
  if (spec.layer_count() < 2) return std::nullopt;
  // The head has the output matrix besides, which counts like a layer or more: the halves are of layers.
  const uint32_t middle = 1 + spec.layer_count() / 2;
  const ModelPages first = model_pages(manifest, spec, {0, middle}, measurements, options);
  const ModelPages second = model_pages(manifest, spec, {middle, spec.unit_count()}, measurements, options);
  try {
    const double first_seconds = half_of_pass(first, 0).compute_seconds;
    const double second_seconds = half_of_pass(second, 0).compute_seconds;
    const Prediction a = half_of_pass(first, second_seconds), b = half_of_pass(second, first_seconds);
    return a.seconds > b.seconds ? a : b;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kOutOfMemory) throw;
    return std::nullopt;
  }
}

}  // namespace caravan
