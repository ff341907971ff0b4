#include "peers/cut.h"

#include <algorithm>
#include <limits>

#include "base/check.h"

namespace caravan {
namespace {

// Sums over the layers before index i, so that a span costs one subtraction.
struct Sums {
  explicit Sums(const std::vector<LayerCost>& layers) : bytes(layers.size() + 1), work(layers.size() + 1) {
    for (size_t i = 0; i < layers.size(); ++i) {
      if (__builtin_add_overflow(bytes[i], layers[i].bytes, &bytes[i + 1])) bytes[i + 1] = kNone;
      work[i + 1] = work[i] + layers[i].work;
    }
  }
  // Layers [first, last) fit into `memory`.
  bool fits(size_t first, size_t last, uint64_t memory) const {
    return first == last || (bytes[last] != kNone && bytes[last] - bytes[first] <= memory);
  }
  static constexpr uint64_t kNone = std::numeric_limits<uint64_t>::max();
  std::vector<uint64_t> bytes;
  std::vector<double> work;
};

std::vector<double> layer_times(const std::vector<PeerOffer>& peers) {
  double sum = 0;
  size_t measured = 0;
  for (const PeerOffer& peer : peers) {
    sum += static_cast<double>(peer.layer_ns);
    measured += peer.layer_ns != 0;
  }
  const double mean = measured ? sum / static_cast<double>(measured) : 1;
  std::vector<double> times;
  for (const PeerOffer& peer : peers)
    times.push_back(peer.layer_ns ? static_cast<double>(peer.layer_ns) : mean);
  return times;
}

// The best cut of the first `last` layers over the first peers.
struct Best {
  double slowest = std::numeric_limits<double>::infinity();
  uint32_t stages = 0;
  uint32_t first = 0;  // where the last peer's span begins
  bool better_than(const Best& other) const {
    return slowest < other.slowest || (slowest == other.slowest && stages < other.stages);
  }
};

std::vector<UnitSpan> spans_of(const std::vector<std::vector<Best>>& best, size_t layers) {
  std::vector<UnitSpan> spans(best.size() - 1);
  size_t last = layers;
  for (size_t peer = spans.size(); peer-- > 0;) {
    const size_t first = best[peer + 1][last].first;
    // Layer i is unit i + 1.
    spans[peer] = {static_cast<uint32_t>(first + 1), static_cast<uint32_t>(last + 1)};
    last = first;
  }
  CHECK(last == 0u);
  return spans;
}

}  // namespace

std::vector<UnitSpan> cut_by_cost(const std::vector<LayerCost>& layers, const std::vector<PeerOffer>& peers) {
  const Sums sums(layers);
  const std::vector<double> times = layer_times(peers);
  const size_t count = layers.size();
  // best[p][l]: layers [0, l) over the first p peers.
  std::vector<std::vector<Best>> best(peers.size() + 1, std::vector<Best>(count + 1));
  best[0][0].slowest = 0;
  for (size_t p = 0; p < peers.size(); ++p) {
    for (size_t last = 0; last <= count; ++last) {
      for (size_t first = last + 1; first-- > 0;) {
        if (!sums.fits(first, last, peers[p].memory_bytes)) break;
        const Best& before = best[p][first];
        const double time = (sums.work[last] - sums.work[first]) * times[p];
        const Best candidate{std::max(before.slowest, time), before.stages + (first < last),
                             static_cast<uint32_t>(first)};
        if (candidate.better_than(best[p + 1][last])) best[p + 1][last] = candidate;
      }
    }
  }
  if (best[peers.size()][count].slowest == std::numeric_limits<double>::infinity()) return {};
  return spans_of(best, count);
}

std::vector<UnitSpan> cut_evenly(const std::vector<LayerCost>& layers, const std::vector<PeerOffer>& peers) {
  if (peers.empty()) return {};
  const Sums sums(layers);
  const size_t each = layers.size() / peers.size(), more = layers.size() % peers.size();
  std::vector<UnitSpan> spans;
  size_t first = 0;
  for (size_t p = 0; p < peers.size(); ++p) {
    const size_t last = first + each + (p < more);
    if (!sums.fits(first, last, peers[p].memory_bytes)) return {};
    spans.push_back({static_cast<uint32_t>(first + 1), static_cast<uint32_t>(last + 1)});
    first = last;
  }
  return spans;
}

double slowest_stage_ns(const std::vector<LayerCost>& layers, const std::vector<PeerOffer>& peers,
                        const std::vector<UnitSpan>& spans) {
  CHECK(spans.size() == peers.size());
  const Sums sums(layers);
  const std::vector<double> times = layer_times(peers);
  double slowest = 0;
  for (size_t p = 0; p < spans.size(); ++p) {
    const size_t first = spans[p].first - 1, last = spans[p].last - 1;
    if (!sums.fits(first, last, peers[p].memory_bytes)) return std::numeric_limits<double>::infinity();
    slowest = std::max(slowest, (sums.work[last] - sums.work[first]) * times[p]);
  }
  return slowest;
}

}  // namespace caravan
