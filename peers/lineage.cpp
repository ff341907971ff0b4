#include "peers/lineage.h"

#include <algorithm>

#include "base/hash.h"

namespace caravan {
namespace {

// Raised when state of the same model, class and codec comes to have other bits.
constexpr uint64_t kVersion = 2;
enum class Part : uint64_t { kClass = 1, kLossyCut = 2, kWeights = 3 };

}  // namespace

Lineage lineage_of(const Assign& assign, const OwnFacts& own) {
  Sha256 hash;
  hash.update("caravan lineage").update(kVersion);
  hash.update(std::as_bytes(std::span(own.model.bytes)));
  hash.update(uint64_t{assign.kv_type});
  hash.update(std::as_bytes(std::span(assign.weights.bytes)));
  const Hash256* weights_before = &assign.weights;
  const std::string* before = nullptr;
  for (uint32_t stage = 0; stage <= assign.stage; ++stage) {
    const RouteStage& one = assign.route[stage];
    // Tokens, not rows, reach a stage that has unit 0.
    if (assign.codec != CodecId::kF32 && one.span.first > 0)
      hash.update(uint64_t(Part::kLossyCut)).update(uint64_t{one.span.first}).update(uint64_t(assign.codec));
    const Hash256& weights = one.peer == own.key ? own.weights : one.weights;
    if (weights != *weights_before)
      hash.update(uint64_t(Part::kWeights))
          .update(uint64_t{one.span.first})
          .update(std::as_bytes(std::span(weights.bytes)));
    weights_before = &weights;
    const std::string& numerics = one.peer == own.key ? own.numerics_class : one.numerics_class;
    if (before != nullptr && *before == numerics) continue;
    // The first layers are of the first class wherever unit 0 lies.
    hash.update(uint64_t(Part::kClass)).update(uint64_t{before == nullptr ? 0 : one.span.first});
    hash.update(uint64_t{numerics.size()}).update(numerics);
    before = &numerics;
  }
  const Hash256 whole = hash.finish();
  Lineage out;
  std::copy_n(whole.bytes.begin(), out.bytes.size(), out.bytes.begin());
  return out;
}

}  // namespace caravan
