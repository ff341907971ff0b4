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

std::string too_small_to_join(const Config& config, const Manifest& manifest, const EngineOptions& options,
                              bool measured) {
  const ModelSpec spec = read_spec(manifest);
  HostedPart part{{}, false, measured};
  if (options.memory.count >= ram_to_begin(budget_needs(manifest, spec, options, part, 0))) return "";
  const uint32_t context = context_of(config, spec);
  part.layers = all_layers(spec);
  const BudgetNeeds needs = budget_needs(manifest, spec, options, part, context);
  return refuse_budgets(options, least_budgets(options, needs),
                        fmt::format("any layers of this model and a context of {}", context));
}

}  // namespace caravan
