#include "model/added_tokens.h"

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

void AddedTokens::add(std::string_view text, Rule rule) {
  if (text.empty()) return;
  uint32_t node = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    uint32_t next = child(node, byte);
    if (next == kNone) {
      next = static_cast<uint32_t>(ends_.size());
      ends_.push_back(kNone);
      if (node == 0) {
        first_[byte] = next;
      } else {
        children_.emplace(uint64_t{node} << 8 | byte, next);
      }
    }
    node = next;
  }
  if (ends_[node] != kNone) return;
  ends_[node] = static_cast<uint32_t>(rules_.size());
  rules_.push_back(rule);
}

uint32_t AddedTokens::child(uint32_t node, uint8_t byte) const {
  if (node == 0) return first_[byte];
  const auto found = children_.find(uint64_t{node} << 8 | byte);
  return found == children_.end() ? kNone : found->second;
}

AddedTokens::Match AddedTokens::match_at(std::string_view text, size_t at, bool control) const {
  Match longest;
  uint32_t node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    node = child(node, static_cast<uint8_t>(text[i]));
    if (node == kNone) break;
    if (ends_[node] == kNone) continue;
    const Rule& rule = rules_[ends_[node]];
    if (rule.control && !control) continue;
    if (rule.whole_word && !word_borders(text, at, i + 1)) continue;
    longest = {ends_[node], i + 1 - at};
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
