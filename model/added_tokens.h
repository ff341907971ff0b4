#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/ids.h"

namespace caravan {

// Finds whole tokens (control and user-defined ones) in a text: leftmost first, the longest of those that
// begin at the same place. Immutable once built: any thread.
class AddedTokens {
 public:
  struct Rule {
    TokenId id = 0;
    bool control = false;  // found only when asked for
    bool strip_left = false;
    bool strip_right = false;
    bool whole_word = false;
  };
  struct Fragment {
    std::string_view text;      // the token's, with the spaces it swallows, or what lies between tokens
    std::optional<TokenId> id;  // nothing for text between tokens
  };

  // An empty text is passed over; of two rules for one text the first counts.
  void add(std::string_view text, Rule rule);
  bool empty() const { return rules_.empty(); }
  // Appends the fragments of `text`, none empty, in order; together they are the text.
  void cut(std::string_view text, bool control, std::vector<Fragment>& fragments) const;

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Match {
    uint32_t rule = kNone;
    size_t bytes = 0;
  };
  Match match_at(std::string_view text, size_t at, bool control) const;
  uint32_t child(uint32_t node, uint8_t byte) const;

  // A trie: node 0 is the root; first_ is the root's children, since most bytes of a text begin no token.
  std::vector<uint32_t> first_ = std::vector<uint32_t>(256, kNone);
  std::unordered_map<uint64_t, uint32_t> children_;  // (node << 8 | byte) to node
  std::vector<uint32_t> ends_ = {kNone};             // by node: the rule that ends here
  std::vector<Rule> rules_;
};

}  // namespace caravan
