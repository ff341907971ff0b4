#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "base/text_list.h"

namespace caravan {

// Finds whole tokens (control and user-defined ones) in a text: leftmost first, the longest of those that
// begin at the same place. Immutable: any thread.
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

  AddedTokens() = default;
  // A rule for each text. An empty text is passed over; of two rules for one text the first counts.
  AddedTokens(const TextList& texts, const std::vector<Rule>& rules);
  bool empty() const { return rules_.empty(); }
  // Appends the fragments of `text`, none empty, in order; together they are the text.
  void cut(std::string_view text, bool control, std::vector<Fragment>& fragments) const;
  Bytes memory() const { return texts_.memory() + Bytes{rules_.capacity() * sizeof(Rule)}; }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Match {
    uint32_t rule = kNone;
    size_t bytes = 0;
  };
  // Of texts_, those that begin alike: [first, last).
  struct Run {
    uint32_t first = 0, last = 0;
  };
  Match match_at(std::string_view text, size_t at, bool control) const;
  Run narrowed(Run run, size_t depth, uint8_t byte) const;

  TextList texts_;  // sorted, none twice
  std::vector<Rule> rules_;
  std::array<Run, 256> by_first_byte_{};
};

}  // namespace caravan
