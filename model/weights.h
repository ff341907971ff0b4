#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "base/unit_span.h"
#include "compute/backend.h"
#include "model/spec.h"
#include "offload/pager.h"
#include "shards/manifest.h"

namespace caravan {

inline constexpr size_t kRoles = static_cast<size_t>(Role::kDownBias) + 1;

// A leased weight group: its tensors as operands, by role. Dropped when the layer has run.
class GroupLease {
 public:
  // No matrix (false) for a role that the group does not hold.
  Matrix operator[](Role role) const;

 private:
  friend class ModelWeights;
  struct Binding {
    PageId page;
    std::array<int16_t, kRoles> extent;  // -1: none
    std::array<Matrix, kRoles> shape;    // without data
  };
  GroupLease(const Binding& binding, Lease lease) : binding_(&binding), lease_(std::move(lease)) {}
  const Binding* binding_;
  Lease lease_;
};

// Refuses (kMalformed, kUnsupported) a model in which any group lacks a tensor that the spec needs, or has
// one of another shape or without a place; touches no weights and allocates nothing by their sizes.
void check_weights(const Manifest& manifest, const ModelSpec& spec);

// The weights of a span of units, checked against the spec: every tensor that the layers need is there with
// the right shape, and none is there that the family has no use for. Groups outside the span are not touched.
class ModelWeights {
 public:
  // Throws kMalformed or kUnsupported naming file, tensor and reason.
  ModelWeights(const Manifest& manifest, const ModelSpec& spec, UnitSpan span);
  // Throws kNotFound for a group outside the span.
  GroupLease acquire(GroupId id) const;
  Pager& pager() const { return *pager_; }
  uint64_t bytes() const;

 private:
  std::map<GroupId, GroupLease::Binding> bindings_;
  std::unique_ptr<Pager> pager_;
};

}  // namespace caravan
