#include "peers/earlier_cuts.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <set>
#include <span>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/log.h"

namespace caravan {
namespace {

constexpr char kVersion = '1';
// A share in hexadecimal: the key, the number of the numerics class, the layers.
constexpr size_t kKeyDigits = 2 * PeerKey::size(), kNumericsDigits = 16, kLayersDigits = 4;
constexpr size_t kShareDigits = kKeyDigits + kNumericsDigits + kLayersDigits;
static_assert(limits::kMaxLayers < 1u << 4 * kLayersDigits);

std::string key_of(const Hash256& model) {
  return "cut/" + to_string(model);
}

template <class Number>
bool read_number(std::string_view digits, Number& number) {
  const char* const end = digits.data() + digits.size();
  const auto [at, error] = std::from_chars(digits.data(), end, number, 16);
  return error == std::errc() && at == end;
}

EarlierCut decode_cut(std::string_view line, uint32_t layers) {
  const size_t count = line.size() / kShareDigits;
  if (count == 0 || count > limits::kMaxPeers || line.size() % kShareDigits != 0)
    fail(ErrorCode::kMalformed, "a cut has {} digits", line.size());
  EarlierCut cut;
  std::set<PeerKey> peers;
  uint64_t sum = 0;
  for (; !line.empty(); line.remove_prefix(kShareDigits)) {
    EarlierCut::Share share;
    if (!from_hex(line.substr(0, kKeyDigits), share.peer.bytes.data(), PeerKey::size()) ||
        !read_number(line.substr(kKeyDigits, kNumericsDigits), share.numerics) ||
        !read_number(line.substr(kKeyDigits + kNumericsDigits, kLayersDigits), share.layers))
      fail(ErrorCode::kMalformed, "a cut holds what are no digits");
    if (!peers.insert(share.peer).second)
      fail(ErrorCode::kMalformed, "a cut names peer {} twice", short_string(share.peer));
    sum += share.layers;
    cut.shares.push_back(share);
  }
  if (sum != layers) fail(ErrorCode::kMalformed, "a cut covers {} layers of {}", sum, layers);
  return cut;
}

}  // namespace

uint64_t numerics_number(std::string_view numerics_class) {
  return xxh3(std::as_bytes(std::span(numerics_class)));
}

bool is_of_same_peers(const EarlierCut& one, const EarlierCut& other) {
  return std::is_permutation(
      one.shares.begin(), one.shares.end(), other.shares.begin(), other.shares.end(),
      [](const EarlierCut::Share& a, const EarlierCut::Share& b) { return a.peer == b.peer; });
}

bool remember(std::vector<EarlierCut>& cuts, EarlierCut cut) {
  if (!cuts.empty() && cuts.front() == cut) return false;
  std::erase_if(cuts, [&](const EarlierCut& earlier) { return is_of_same_peers(earlier, cut); });
  cuts.insert(cuts.begin(), std::move(cut));
  if (cuts.size() > limits::kMaxEarlierCuts) cuts.pop_back();
  return true;
}

std::string encode_cuts(const std::vector<EarlierCut>& cuts) {
  std::string text(1, kVersion);
  for (const EarlierCut& cut : cuts) {
    for (const EarlierCut::Share& share : cut.shares)
      text += fmt::format("{}{:016x}{:04x}", to_string(share.peer), share.numerics, share.layers);
    text += '\n';
  }
  return text;
}

std::vector<EarlierCut> decode_cuts(std::string_view text, uint32_t layers) {
  if (text.empty() || text[0] != kVersion) fail(ErrorCode::kUnsupported, "it is of another version");
  std::vector<EarlierCut> cuts;
  for (text.remove_prefix(1); !text.empty();) {
    const size_t end = text.find('\n');
    if (end == text.npos || cuts.size() == limits::kMaxEarlierCuts)
      fail(ErrorCode::kMalformed, "it is cut short or holds more than {} cuts", limits::kMaxEarlierCuts);
    cuts.push_back(decode_cut(text.substr(0, end), layers));
    text.remove_prefix(end + 1);
  }
  return cuts;
}

std::vector<EarlierCut> load_cuts(const KeyValue& store, const Hash256& model, uint32_t layers) {
  try {
    const auto text = store.get(key_of(model));
    if (text) return decode_cuts(*text, layers);
  } catch (const Error& error) {
    log_warning("earlier_cuts_ignored key={} reason=\"{}\"", key_of(model), error.message());
  }
  return {};
}

void save_cuts(KeyValue& store, const Hash256& model, const std::vector<EarlierCut>& cuts) {
  try {
    store.put(key_of(model), encode_cuts(cuts));
  } catch (const Error& error) {
    log_warning("earlier_cuts_not_kept key={} reason=\"{}\"", key_of(model), error.message());
  }
}

}  // namespace caravan
