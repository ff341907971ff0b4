#include "model/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/limits.h"

namespace caravan {

void StopMatcher::Automaton::step(char c) {
  while (length > 0 && (length == stop.size() || stop[length] != c)) length = fallback[length];
  if (stop[length] == c) ++length;
}

StopMatcher::StopMatcher(std::vector<std::string> stops) {
  if (stops.size() > limits::kMaxStopStrings) {
    fail(ErrorCode::kLimit, "stop: {} strings, more than {}", stops.size(), limits::kMaxStopStrings);
  }
  for (std::string& stop : stops) {
    if (stop.empty()) fail(ErrorCode::kInvalidArgument, "stop: an empty string");
    if (stop.size() > limits::kMaxStopBytes) {
      fail(ErrorCode::kLimit, "stop: a string of {} bytes, more than {}", stop.size(), limits::kMaxStopBytes);
    }
    Automaton& automaton = automata_.emplace_back();
    automaton.stop = std::move(stop);
    // Each prefix's fallback is found by running the automaton on the string itself.
    automaton.fallback.assign(automaton.stop.size() + 1, 0);
    for (size_t i = 1; i < automaton.stop.size(); ++i) {
      automaton.step(automaton.stop[i]);
      automaton.fallback[i + 1] = automaton.length;
    }
    automaton.length = 0;
  }
}

std::string StopMatcher::add(std::string_view text) {
  if (matched_) return {};
  for (const char c : text) {
    held_ += c;
    for (size_t i = 0; i < automata_.size(); ++i) {
      Automaton& automaton = automata_[i];
      automaton.step(c);
      const bool whole = automaton.length == automaton.stop.size();
      if (whole && (!matched_ || automaton.length > automata_[*matched_].length)) matched_ = i;
    }
    if (!matched_) continue;
    std::string before = held_.substr(0, held_.size() - automata_[*matched_].length);
    held_.clear();
    return before;
  }
  size_t held = 0;
  for (const Automaton& automaton : automata_) held = std::max(held, automaton.length);
  std::string free = held_.substr(0, held_.size() - held);
  held_.erase(0, free.size());
  return free;
}

std::string StopMatcher::finish() {
  return std::exchange(held_, {});
}

}  // namespace caravan
