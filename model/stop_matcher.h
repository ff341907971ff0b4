#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace caravan {

// Watches streamed text for stop strings. What may be the beginning of one is held back, so that no part of a
// stop string is ever given out. The occurrence that ends first counts; of several that end there, the
// longest. So what comes out does not depend on how the text is cut into pieces. One thread.
class StopMatcher {
 public:
  // Throws kInvalidArgument for an empty stop string, kLimit over kMaxStopStrings or kMaxStopBytes.
  explicit StopMatcher(std::vector<std::string> stops);

  // The text that can be given out now that `text` has come. After a match: nothing.
  std::string add(std::string_view text);
  // No more text comes: what was held back, unless a stop string has matched.
  std::string finish();
  // Which stop string matched, as an index into those given.
  std::optional<size_t> matched() const { return matched_; }

 private:
  // Knuth, Morris and Pratt's automaton of one stop string.
  struct Automaton {
    std::string stop;
    std::vector<size_t> fallback;  // by length of a matched prefix: the next shorter one that also ends there
    size_t length = 0;             // of the prefix that the text ends with now
    void step(char c);
  };
  std::vector<Automaton> automata_;
  std::string held_;
  std::optional<size_t> matched_;
};

}  // namespace caravan
