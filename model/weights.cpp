#include "model/weights.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "shards/names.h"

namespace caravan {

namespace {

// The tensors that a group needs under a spec, with their shapes.
struct Expected {
  Role role;
  uint32_t rows;
  uint32_t columns;
  bool optional = false;
  uint32_t other_columns = 0;  // another width that is as right (a norm over the whole projection)
};

std::vector<Expected> expected_attention(const ModelSpec& spec, const LayerSpec& layer) {
  const AttentionSpec& attention = layer.attention;
  const HeadShape& shape = attention.shape;
  const uint32_t query_width = shape.heads * shape.head_width, kv_width = shape.kv_heads * shape.head_width;
  std::vector<Expected> expected = {
      {Role::kQuery, query_width, spec.width},
      {Role::kKey, kv_width, spec.width},
      {Role::kValue, kv_width, spec.width},
      {Role::kAttentionOutput, spec.width, query_width},
  };
  if (layer.pre_norm) expected.push_back({Role::kAttentionNorm, 1, spec.width});
  if (layer.post_norm) expected.push_back({Role::kAttentionPostNorm, 1, spec.width});
  if (attention.bias) {
    expected.push_back({Role::kQueryBias, 1, query_width});
    expected.push_back({Role::kKeyBias, 1, kv_width});
    expected.push_back({Role::kValueBias, 1, kv_width});
  }
  if (attention.output_bias) expected.push_back({Role::kAttentionOutputBias, 1, spec.width});
  if (attention.head_norm) {
    expected.push_back({Role::kQueryNorm, 1, shape.head_width, false, query_width});
    expected.push_back({Role::kKeyNorm, 1, shape.head_width, false, kv_width});
  }
  return expected;
}

std::vector<Expected> expected_experts_or_dense(const ModelSpec& spec, const FeedForwardSpec& feed_forward) {
  return {{Role::kGate, feed_forward.width, spec.width},
          {Role::kUp, feed_forward.width, spec.width},
          {Role::kDown, spec.width, feed_forward.width}};
}

std::vector<Expected> expected_feed_forward(const ModelSpec& spec, const LayerSpec& layer) {
  std::vector<Expected> expected;
  if (layer.feed_forward.experts > 0)
    expected.push_back({Role::kRouter, layer.feed_forward.experts, spec.width});
  else
    expected = expected_experts_or_dense(spec, layer.feed_forward);
  if (layer.feed_forward.bias) {
    expected.push_back({Role::kGateBias, 1, layer.feed_forward.width});
    expected.push_back({Role::kUpBias, 1, layer.feed_forward.width});
    expected.push_back({Role::kDownBias, 1, spec.width});
  }
  if (layer.pre_norm) expected.push_back({Role::kFeedForwardNorm, 1, spec.width});
  if (layer.post_norm) expected.push_back({Role::kFeedForwardPostNorm, 1, spec.width});
  return expected;
}

std::vector<std::pair<GroupId, std::vector<Expected>>> expected_groups(const ModelSpec& spec, UnitSpan span) {
  using Kind = GroupId::Kind;
  std::vector<std::pair<GroupId, std::vector<Expected>>> groups;
  for (uint32_t unit = span.first; unit < span.last; ++unit) {
    if (unit == 0) {
      groups.push_back({{Kind::kEmbed, 0, 0},
                        {{Role::kEmbedding, spec.vocabulary, spec.width},
                         {Role::kRopeFactors, 1, spec.rope.width / 2, true}}});
    } else if (unit == spec.layer_count() + 1) {
      groups.push_back({{Kind::kOutput, 0, 0},
                        {{Role::kOutputNorm, 1, spec.width}, {Role::kOutput, spec.vocabulary, spec.width}}});
    } else {
      const uint32_t index = unit - 1;
      const LayerSpec& layer = spec.layers[index];
      groups.push_back({{Kind::kAttention, index, 0}, expected_attention(spec, layer)});
      groups.push_back({{Kind::kFeedForward, index, 0}, expected_feed_forward(spec, layer)});
      for (uint32_t expert = 0; expert < layer.feed_forward.experts; ++expert)
        groups.push_back(
            {{Kind::kExpert, index, expert}, expected_experts_or_dense(spec, layer.feed_forward)});
    }
  }
  return groups;
}

void check_group(const Manifest& manifest, const std::string& family, const WeightGroup& group,
                 const std::vector<Expected>& expected) {
  for (const Expected& want : expected) {
    const Tensor* tensor = group.find(want.role);
    if (!tensor) {
      if (want.optional) continue;
      fail(ErrorCode::kMalformed, "{}: tensor {} is missing ({}, {}), which family {} needs", manifest.path,
           usual_name(manifest.origin, manifest.architecture, group.id, want.role), to_string(group.id),
           name(want.role), family);
    }
    const bool columns =
        tensor->columns == want.columns || (want.other_columns && tensor->columns == want.other_columns);
    if (tensor->rows != want.rows || !columns)
      fail(ErrorCode::kMalformed, "{}: tensor {} is {} x {}, not {} x {}", manifest.path, tensor->name,
           tensor->rows, tensor->columns, want.rows, want.columns);
  }
  for (const Tensor& tensor : group.tensors) {
    const bool used = std::any_of(expected.begin(), expected.end(),
                                  [&](const Expected& want) { return want.role == tensor.role; });
    if (!used)
      fail(ErrorCode::kUnsupported, "{}: tensor {} has no place in family {}", manifest.path, tensor.name,
           family);
  }
}

// The group, found to hold what it must.
const WeightGroup& checked_group(const Manifest& manifest, const std::string& family, GroupId id,
                                 const std::vector<Expected>& expected) {
  const WeightGroup* group = manifest.find(id);
  // Without a single tensor the first that it needs is missing.
  check_group(manifest, family, group ? *group : WeightGroup{id, {}}, expected);
  CHECK(group != nullptr);
  return *group;
}

// Places in a pass: a layer's attention, then its feed-forward; the head matrix last.
uint64_t order_of(GroupId id, const ModelSpec& spec) {
  const uint64_t layer = id.kind == GroupId::Kind::kOutput ? spec.layer_count() : id.layer;
  return 2 * layer + (id.kind == GroupId::Kind::kFeedForward ? 1 : 0);
}

// Its extents are the group's tensors, in their order.
PageSpec page_of(const WeightGroup& group, const ModelSpec& spec) {
  PageSpec page{to_string(group.id), {}, order_of(group.id, spec), PageUse::kWhole, 0};
  if (group.id.kind == GroupId::Kind::kExpert) page.use = PageUse::kChosen, page.shelf = group.id.layer;
  for (const Tensor& tensor : group.tensors) page.extents.push_back(tensor.extent);
  return page;
}

}  // namespace

Matrix GroupLease::operator[](Role role) const {
  const auto index = static_cast<size_t>(role);
  if (binding_->extent[index] < 0) return {};
  Matrix matrix = binding_->shape[index];
  matrix.data = lease_.extent(static_cast<size_t>(binding_->extent[index])).data();
  return matrix;
}

void check_weights(const Manifest& manifest, const ModelSpec& spec) {
  for (const auto& [id, expected] : expected_groups(spec, {0, spec.unit_count()}))
    checked_group(manifest, spec.family, id, expected);
}

ModelWeights::ModelWeights(const Manifest& manifest, const ModelSpec& spec, UnitSpan span, Pager& pager)
    : pager_(pager) {
  std::vector<PageSpec> pages;
  std::vector<GroupLease::Binding> bindings;
  std::vector<GroupId> ids;
  for (const auto& [id, expected] : expected_groups(spec, span)) {
    const WeightGroup* group = &checked_group(manifest, spec.family, id, expected);
    if (id.kind == GroupId::Kind::kEmbed) {
      embedding_ = *group->find(Role::kEmbedding);
      continue;
    }
    GroupLease::Binding& binding = bindings.emplace_back();
    ids.push_back(id);
    binding.extent.fill(-1);
    for (size_t i = 0; i < group->tensors.size(); ++i) {
      const Tensor& tensor = group->tensors[i];
      const auto index = static_cast<size_t>(tensor.role);
      binding.extent[index] = static_cast<int16_t>(i);
      binding.shape[index] = {tensor.type, tensor.rows, tensor.columns, nullptr};
    }
    pages.push_back(page_of(*group, spec));
  }
  pages_ = pager_.add(std::move(pages));
  for (size_t i = 0; i < ids.size(); ++i) {
    bindings[i].page = pages_[i];
    bindings_.emplace(ids[i], bindings[i]);
  }
}

ModelWeights::~ModelWeights() {
  pager_.remove(pages_);
}

GroupLease ModelWeights::acquire(GroupId id) const {
  const auto found = bindings_.find(id);
  if (found == bindings_.end())
    fail(ErrorCode::kNotFound, "weight group {} is not hosted here", to_string(id));
  return GroupLease(found->second, pager_.acquire(found->second.page));
}

void ModelWeights::want_experts(uint32_t layer, std::span<uint32_t> experts, bool scan) const {
  struct Wanted {
    uint32_t expert;
    PageId page;
    Residency::Readiness readiness;
  };
  std::vector<Wanted> wanted;
  for (uint32_t expert : experts) {
    const PageId page = bindings_.at({GroupId::Kind::kExpert, layer, expert}).page;
    wanted.push_back({expert, page, pager_.readiness(page)});
  }
  std::stable_sort(wanted.begin(), wanted.end(),
                   [](const Wanted& a, const Wanted& b) { return a.readiness < b.readiness; });
  std::vector<PageId> pages;
  for (const Wanted& one : wanted) {
    experts[pages.size()] = one.expert;
    pages.push_back(one.page);
  }
  pager_.want(pages, scan);
}

EmbeddingRows ModelWeights::embedding(std::span<const TokenId> ids) const {
  if (!embedding_) fail(ErrorCode::kNotFound, "weight group embed is not hosted here");
  const Tensor& tensor = *embedding_;
  EmbeddingRows made{{tensor.type, static_cast<uint32_t>(ids.size()), tensor.columns, nullptr}, {}};
  const uint64_t row_bytes = tensor.extent.length / tensor.rows;
  made.bytes.resize(ids.size() * row_bytes);
  for (size_t i = 0; i < ids.size(); ++i)
    pager_.source().read(tensor.extent.file, tensor.extent.offset + ids[i] * row_bytes,
                         std::span(made.bytes).subspan(i * row_bytes, row_bytes));
  made.rows.data = made.bytes.data();
  return made;
}

std::vector<PageSpec> ModelWeights::page_specs(const Manifest& manifest, const ModelSpec& spec,
                                               UnitSpan span) {
  std::vector<PageSpec> pages;
  for (const auto& [id, expected] : expected_groups(spec, span))
    if (id.kind != GroupId::Kind::kEmbed)
      pages.push_back(page_of(checked_group(manifest, spec.family, id, expected), spec));
  return pages;
}

Bytes ModelWeights::paged_bytes(const Manifest& manifest, UnitSpan span) {
  Bytes sum;
  for (const WeightGroup& group : manifest.groups) {
    if (group.id.kind == GroupId::Kind::kEmbed) continue;
    const uint32_t unit =
        group.id.kind == GroupId::Kind::kOutput ? manifest.layer_count + 1 : group.id.layer + 1;
    if (unit >= span.first && unit < span.last) sum += group.bytes();
  }
  return sum;
}

}  // namespace caravan
