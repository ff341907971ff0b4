#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "compute/backend.h"
#include "shards/manifest.h"

namespace caravan {

// All a stage loop knows of a model: one LayerSpec a layer, as data. A family (model/families.h) is a table
// from a file's metadata to this.

// The roles that a layer's groups must or may hold; shapes are checked against the spec when the model is
// bound.
struct AttentionSpec {
  HeadShape shape;
  float scale = 1;      // of the scores
  uint32_t window = 0;  // 0: full
  RopeLayout rope = RopeLayout::kNone;
  bool bias = false;  // of queries, keys and values
  bool output_bias = false;
  bool head_norm = false;  // of queries and keys, per head or over the whole projection, as the tensors say
};

struct FeedForwardSpec {
  Activation activation = Activation::kSilu;
  bool bias = false;     // of the dense feed-forward's three matrices
  uint32_t width = 0;    // of the dense feed-forward, or of one expert
  uint32_t experts = 0;  // 0: dense
  uint32_t experts_per_token = 0;
  bool normalise = true;  // the chosen experts' weights sum to 1
};

struct LayerSpec {
  bool pre_norm = true;    // norms before attention and feed-forward
  bool post_norm = false;  // norms of what they give, before it is added
  AttentionSpec attention;
  FeedForwardSpec feed_forward;
  float residual_scale = 1;
};

// Rotary positions: the first `width` elements of a head turn by position * inverse_frequencies[i], and the
// table's cosines and sines are multiplied by `magnitude` (YaRN's attention factor).
struct RopeSpec {
  uint32_t width = 0;
  std::vector<float> inverse_frequencies;  // [width / 2]
  float magnitude = 1;
};

struct ModelSpec {
  std::string family;
  uint32_t width = 0;
  uint32_t vocabulary = 0;
  uint32_t context = 0;  // positions the model was trained for
  float norm_epsilon = 0;
  float embedding_scale = 1;
  float logit_scale = 1;
  RopeSpec rope;  // frequencies and magnitude, one for all layers
  std::vector<LayerSpec> layers;

  uint32_t layer_count() const { return static_cast<uint32_t>(layers.size()); }
  // Unit 0 is embed, 1..L the layers, L+1 output.
  uint32_t unit_count() const { return layer_count() + 2; }
};

}  // namespace caravan
