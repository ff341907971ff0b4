#include "model/added_tokens.h"

#include <algorithm>
#include <numeric>

#include "model/unicode.h"

namespace caravan {
namespace {

// Where the character before `at` begins; `at` is not 0.
size_t previous_char(std::string_view text, size_t at) {
  --at;
  while (at > 0 && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

bool word_borders(std::string_view text, size_t begin, size_t end) {
  if (begin > 0 && is_word_char(first_char(text.substr(previous_char(text, begin))).code)) return false;
  return end == text.size() || !is_word_char(first_char(text.substr(end)).code);
}

}  // namespace

AddedTokens::AddedTokens(const TextList& texts, const std::vector<Rule>& rules) {
  std::vector<uint32_t> order(texts.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return texts[a] < texts[b]; });
  for (const uint32_t i : order) {
    if (texts[i].empty() || (!texts_.empty() && texts_[texts_.size() - 1] == texts[i])) continue;
    Run& run = by_first_byte_[static_cast<uint8_t>(texts[i][0])];
    if (run.last == 0) run.first = static_cast<uint32_t>(texts_.size());
    texts_.push_back(texts[i]);
    rules_.push_back(rules[i]);
    run.last = static_cast<uint32_t>(texts_.size());
  }
  texts_.shrink_to_fit();
  rules_.shrink_to_fit();
}

// Those of a run, all longer than `depth`, that have the byte there.
AddedTokens::Run AddedTokens::narrowed(Run run, size_t depth, uint8_t byte) const {
  const auto first_where = [&](auto is_past) {
    uint32_t first = run.first;
    for (uint32_t count = run.last - run.first; count > 0;) {
      const uint32_t middle = first + count / 2;
      const bool past = is_past(static_cast<uint8_t>(texts_[middle][depth]));
      count = past ? count / 2 : count - count / 2 - 1;
      if (!past) first = middle + 1;
    }
    return first;
  };
  return {first_where([&](uint8_t at) { return at >= byte; }),
          first_where([&](uint8_t at) { return at > byte; })};
}

AddedTokens::Match AddedTokens::match_at(std::string_view text, size_t at, bool control) const {
  Match longest;
  Run run = by_first_byte_[static_cast<uint8_t>(text[at])];
  for (size_t bytes = 1; run.first < run.last; ++bytes) {
    // The first of a run is what all of it begin with, if that is a token.
    if (texts_[run.first].size() == bytes) {
      const Rule& rule = rules_[run.first];
      const bool counts =
          (control || !rule.control) && (!rule.whole_word || word_borders(text, at, at + bytes));
      if (counts) longest = {run.first, bytes};
      ++run.first;
    }
    if (at + bytes == text.size()) break;
    run = narrowed(run, bytes, static_cast<uint8_t>(text[at + bytes]));
  }
  return longest;
}

void AddedTokens::cut(std::string_view text, bool control, std::vector<Fragment>& fragments) const {
  size_t done = 0;  // what has been put out
  for (size_t at = 0; at < text.size();) {
    const Match match = match_at(text, at, control);
    if (match.rule == kNone) {
      ++at;
      continue;
    }
    const Rule& rule = rules_[match.rule];
    size_t begin = at;
    size_t end = at + match.bytes;
    while (rule.strip_left && begin > done) {
      const size_t before = previous_char(text, begin);
      if (!is_white_space(first_char(text.substr(before)).code)) break;
      begin = before;
    }
    while (rule.strip_right && end < text.size()) {
      const Utf8Char next = first_char(text.substr(end));
      if (!is_white_space(next.code)) break;
      end += next.bytes;
    }
    if (begin > done) fragments.push_back({text.substr(done, begin - done), std::nullopt});
    fragments.push_back({text.substr(begin, end - begin), rule.id});
    at = done = end;
  }
  if (done < text.size()) fragments.push_back({text.substr(done), std::nullopt});
}

}  // namespace caravan
