#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "base/ids.h"
#include "proto/messages.h"

namespace caravan {

// What a stage knows of the sequences it hosts: which are open, how far they are, and the running number that
// must come next. Checks a step against that before anything is computed. One thread.
class SequenceTable {
 public:
  struct Limits {
    uint32_t context = 0;  // positions of one sequence
    uint32_t max_sequences = 0;
    uint32_t max_rows = 0;  // of a step
  };
  explicit SequenceTable(Limits limits) : limits_(limits) {}

  // Nothing when the step continues every sequence it names, which is then taken into account; otherwise why
  // not, naming the sequence, and the table is unfit for more.
  std::optional<std::string> apply(const Step& step);
  size_t size() const { return sequences_.size(); }

 private:
  struct Sequence {
    uint64_t next_number = 1;
    uint32_t positions = 0;
  };
  std::optional<std::string> check_tags(const Step& step) const;
  std::optional<std::string> apply(const SequenceOperation& operation);
  std::optional<std::string> apply(const RowRange& range);
  std::optional<std::string> open(const SequenceOperation& operation);

  const Limits limits_;
  std::map<SequenceId, Sequence> sequences_;
};

}  // namespace caravan
