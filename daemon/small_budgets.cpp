#include "daemon/small_budgets.h"

#include <algorithm>
#include <vector>

#include "daemon/budget_needs.h"
#include "daemon/defaults.h"
#include "daemon/model_library.h"
#include "model/families.h"
#include "peers/cut.h"

namespace caravan {

namespace {

// One KV block.
constexpr uint32_t kShortestContext = 1;

UnitSpan all_layers(const ModelSpec& spec) {
  return {1, spec.layer_count() + 1};
}

// As HeadProcess and LocalRing have them cut.
std::vector<UnitSpan> even_spans(const ModelSpec& spec, uint32_t peers) {
  return cut_evenly(std::vector<LayerCost>(spec.layer_count()),
                    std::vector<PeerOffer>(peers, PeerOffer{UINT64_MAX, 0}));
}

}  // namespace

std::string small_budgets(const BudgetQuestion& question) {
  const auto& [config, manifest, spec, options, context, peers] = question;
  if (peers == 0) {
    const HostedPart everything{all_layers(spec), true, false};
    return refuse_budgets(options,
                          least_budgets(options, budget_needs(manifest, spec, options, everything, context)),
                          "this model and context");
  }
  const HostedPart head{{}, true, false};
  LeastBudgets least = least_budgets(options, budget_needs(manifest, spec, options, head, context));
  const EngineOptions child = child_options(config, options, peers);
  for (const UnitSpan span : even_spans(spec, peers)) {
    const BudgetNeeds needs = budget_needs(manifest, spec, child, {span, false, true}, context);
    least = most_of(least, least_budgets(child, needs));
  }
  return refuse_budgets(child, least,
                        fmt::format("a ring of {} peer{} and this context", peers, peers == 1 ? "" : "s"));
}

std::string small_budgets(const Config& config, const std::string& model, uint32_t peers) {
  const Manifest manifest = open_model(model, config);
  const ModelSpec spec = read_spec(manifest);
  const EngineOptions options = engine_options(config, std::max(1u, peers));
  return small_budgets({config, manifest, spec, options, context_of(config, spec), peers});
}

std::string too_small_to_join(const Manifest& manifest, const EngineOptions& options, bool measured) {
  const ModelSpec spec = read_spec(manifest);
  LeastBudgets least{UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX};
  for (uint32_t unit = 1; unit <= spec.layer_count(); ++unit) {
    const HostedPart part{{unit, unit + 1}, false, measured};
    const LeastBudgets one =
        least_budgets(options, budget_needs(manifest, spec, options, part, kShortestContext));
    if (one.ram < least.ram) least = one;
  }
  return refuse_budgets(options, least, "a layer of this model, however short the context,");
}

std::string too_small_to_host(const Manifest& manifest, const EngineOptions& options, UnitSpan span,
                              uint32_t context) {
  const ModelSpec spec = read_spec(manifest);
  const BudgetNeeds needs = budget_needs(manifest, spec, options, {span, false, false}, context);
  const std::string what =
      context > kShortestContext ? fmt::format("a context of {}", context) : "however short a context";
  return refuse_budgets(options, least_budgets(options, needs),
                        fmt::format("layers {} to {} and {}", span.first, span.last - 1, what));
}

std::string too_little_disk(const Manifest& manifest, uint64_t room, std::optional<uint64_t> limit) {
  std::vector<uint64_t> layers(manifest.layer_count);
  for (const WeightGroup& group : manifest.groups) {
    const uint32_t unit = unit_of(group.id, manifest.layer_count);
    if (unit > 0 && unit <= manifest.layer_count) layers[unit - 1] += group.bytes().count;
  }
  const uint64_t least = layers.empty() ? 0 : *std::min_element(layers.begin(), layers.end());
  if (room >= least) return "";
  const std::string text = fmt::format(
      "the weights that a peer fetches lie on its disk; there is room for {}{}, and the least layer "
      "of this model takes {}",
      to_string(Bytes{room}), limit ? " within --disk " + to_string(Bytes{*limit}) : "",
      to_string(Bytes{least}));
  if (!limit) return text + "; free some, or name another folder (--state) or a file of the model (--model)";
  const uint64_t enough = *limit + (least - room);
  return text + fmt::format("; --disk is to be more than {} ({} bytes)", to_string(Bytes{enough}), enough);
}

}  // namespace caravan
