#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "model/vocabulary.h"

namespace caravan {

// The cutting that a GGUF file's tokenizer.ggml.pre asks for, and what goes with the name.
struct PreTokenizer {
  std::vector<SplitStep> splits;
  bool ignore_merges = false;
  bool add_bos = false;
};
// Throws kUnsupported, naming `pre` and the names that are known; `where` is the file.
PreTokenizer pre_tokenizer(std::string_view pre, std::string_view where);
// Every name that pre_tokenizer knows, sorted.
std::vector<std::string_view> pre_tokenizer_names();
// GPT-2's own cutting, which Hugging Face's ByteLevel uses too.
extern const std::string_view kGpt2Pattern;

// A compiled regular expression (PCRE2 with JIT, Unicode properties). Any thread.
class Pattern {
 public:
  // A span [begin, end) of the text.
  struct Span {
    size_t begin = 0;
    size_t end = 0;
  };
  // Throws kUnsupported with the reason when the expression cannot be compiled, kLimit when it is too long.
  Pattern(std::string_view expression, std::string_view where);
  ~Pattern();
  Pattern(Pattern&&) noexcept;
  Pattern& operator=(Pattern&&) noexcept;
  // One thread's search, with the buffers it needs; the pattern must outlive it.
  class Search {
   public:
    explicit Search(const Pattern& pattern);
    ~Search();
    // Appends every match in `text` (valid UTF-8), left to right; an empty match stands between two
    // characters. Throws kLimit when the match limit is reached.
    void find_all(std::string_view text, std::vector<Span>& matches);

   private:
    struct Buffers;
    std::unique_ptr<Buffers> buffers_;
  };
  // All matches replaced by `content`, taken literally.
  std::string replace_all(std::string_view text, std::string_view content) const;

 private:
  struct Code;
  std::unique_ptr<const Code> code_;
};

// Runs the cutting steps of a vocabulary. Any thread.
class Splitter {
 public:
  // Texts that steps have rewritten; what the pieces point into.
  using Arena = std::deque<std::string>;

  Splitter(std::vector<SplitStep> steps, std::string_view where);
  // Appends the pieces of `text` (valid UTF-8), none empty. `opening`: it begins the whole text. The pieces
  // point into `text` and `arena`.
  void split(std::string_view text, bool opening, std::vector<std::string_view>& pieces, Arena& arena) const;
  bool empty() const { return steps_.empty(); }

 private:
  struct Step {
    SplitStep plan;
    std::unique_ptr<const Pattern> pattern;  // of kPattern
  };
  std::vector<Step> steps_;
};

}  // namespace caravan
