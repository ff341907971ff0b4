#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "base/ids.h"
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

// Rows of the embedding table, read from the source. A table is used a few rows at a time, so it is no page
// and takes no part of the weights' budget; and its mapping is not touched, since a row that is brings its
// neighbours along, until all of a large table is resident.
struct EmbeddingRows {
  Matrix rows;  // one for each id asked for
  std::vector<std::byte> bytes;
};

// The weights of a span of units, checked against the spec: every tensor that the layers need is there with
// the right shape, and none is there that the family has no use for. Groups outside the span are not touched.
// Its groups are pages of the pager for as long as it lives.
class ModelWeights {
 public:
  // The pager outlives it, and pages the manifest's source. Throws kMalformed or kUnsupported naming file,
  // tensor and reason, and as Pager::add.
  ModelWeights(const Manifest& manifest, const ModelSpec& spec, UnitSpan span, Pager& pager);
  ~ModelWeights();
  ModelWeights(const ModelWeights&) = delete;
  ModelWeights& operator=(const ModelWeights&) = delete;
  // Throws kNotFound for a group outside the span, and as Pager::acquire.
  GroupLease acquire(GroupId id) const;
  // The experts of a layer that will be acquired next, put into the order in which that waits least: those in
  // memory first, while the others are read (Residency::Readiness). `scan`: for so many rows that the choice
  // says little about what comes, but for the next layer's.
  void want_experts(uint32_t layer, std::span<uint32_t> experts, bool scan) const;
  // Throws kNotFound when unit 0 is not hosted, kIo. The ids are below the vocabulary's size.
  EmbeddingRows embedding(std::span<const TokenId> ids) const;
  // Bytes of the groups of a span, the embedding table left out.
  static Bytes paged_bytes(const Manifest& manifest, UnitSpan span);
  // The pages that a span of units takes. Throws as the constructor.
  static std::vector<PageSpec> page_specs(const Manifest& manifest, const ModelSpec& spec, UnitSpan span);

 private:
  Pager& pager_;
  std::optional<Tensor> embedding_;  // where unit 0 is hosted
  std::map<GroupId, GroupLease::Binding> bindings_;
  std::vector<PageId> pages_;
};

}  // namespace caravan
