#include "peers/sequence_table.h"

#include <fmt/core.h>

#include "base/limits.h"

namespace caravan {

std::optional<std::string> SequenceTable::apply(const Step& step) {
  if (step.operations.size() > limits::kMaxOperationsPerStep)
    return fmt::format("{} operations in one step", step.operations.size());
  if (step.ranges.size() > limits::kMaxRangesPerStep)
    return fmt::format("{} row ranges in one step", step.ranges.size());
  uint64_t rows = 0;
  for (const RowRange& range : step.ranges) rows += range.count;
  if (rows != step.rows.count)
    return fmt::format("{} rows for ranges of {} rows together", step.rows.count, rows);
  if (rows > limits_.max_rows)
    return fmt::format("{} rows, and at most {} are agreed", rows, limits_.max_rows);
  if (auto error = check_tags(step)) return error;
  for (const SequenceOperation& operation : step.operations)
    if (auto error = apply(operation)) return error;
  for (const RowRange& range : step.ranges)
    if (auto error = apply(range)) return error;
  return std::nullopt;
}

std::optional<std::string> SequenceTable::check_tags(const Step& step) const {
  uint64_t completed = 0, loaded = 0;
  for (const RowRange& range : step.ranges) completed += completed_blocks(range);
  for (const SequenceOperation& operation : step.operations) loaded += loaded_blocks(operation);
  if (!step.tags.empty() && step.tags.size() != completed)
    return fmt::format("{} tags for {} blocks that the ranges complete", step.tags.size(), completed);
  if (step.load_tags.size() != loaded || loaded > limits::kMaxTagsPerStep)
    return fmt::format("{} tags for {} blocks to load", step.load_tags.size(), loaded);
  return std::nullopt;
}

std::optional<std::string> SequenceTable::open(const SequenceOperation& operation) {
  if (operation.number != 1)
    return fmt::format("sequence {} opens with number {}", operation.sequence.value, operation.number);
  if (sequences_.size() >= limits_.max_sequences)
    return fmt::format("more than {} sequences", limits_.max_sequences);
  Sequence sequence;
  if (operation.kind == OperationKind::kFork) {
    const auto source = sequences_.find(operation.source);
    if (source == sequences_.end() || source->second.positions < operation.positions)
      return fmt::format("sequence {} forks {} positions of {}, which has fewer", operation.sequence.value,
                         operation.positions, operation.source.value);
    sequence.positions = operation.positions;
  }
  if (operation.kind == OperationKind::kLoad) {
    if (operation.positions == 0 || operation.positions % limits::kKvBlockPositions != 0 ||
        operation.positions > limits_.context)
      return fmt::format("sequence {} loads {} positions: no whole blocks of a context of {}",
                         operation.sequence.value, operation.positions, limits_.context);
    sequence.positions = operation.positions;
  }
  sequence.next_number = 2;
  if (!sequences_.emplace(operation.sequence, sequence).second)
    return fmt::format("sequence {} is open already", operation.sequence.value);
  return std::nullopt;
}

std::optional<std::string> SequenceTable::apply(const SequenceOperation& operation) {
  if (operation.kind == OperationKind::kOpen || operation.kind == OperationKind::kFork ||
      operation.kind == OperationKind::kLoad)
    return open(operation);
  const auto found = sequences_.find(operation.sequence);
  if (found == sequences_.end()) return fmt::format("sequence {} is not open", operation.sequence.value);
  Sequence& sequence = found->second;
  if (operation.number != sequence.next_number)
    return fmt::format("sequence {}: operation {} where {} is next", operation.sequence.value,
                       operation.number, sequence.next_number);
  ++sequence.next_number;
  if (operation.kind == OperationKind::kClose) {
    sequences_.erase(found);
  } else if (operation.kind == OperationKind::kTruncate) {
    if (operation.positions > sequence.positions)
      return fmt::format("sequence {} cut to {} of {} positions", operation.sequence.value,
                         operation.positions, sequence.positions);
    sequence.positions = operation.positions;
  }
  return std::nullopt;
}

std::optional<std::string> SequenceTable::apply(const RowRange& range) {
  const auto found = sequences_.find(range.sequence);
  if (found == sequences_.end()) return fmt::format("rows of sequence {}, not open", range.sequence.value);
  Sequence& sequence = found->second;
  if (range.number != sequence.next_number)
    return fmt::format("sequence {}: rows {} where {} is next", range.sequence.value, range.number,
                       sequence.next_number);
  if (range.first_position != sequence.positions || range.count == 0 ||
      range.count > limits_.context - sequence.positions)
    return fmt::format("sequence {}: {} rows from position {}, after {} of {} positions",
                       range.sequence.value, range.count, range.first_position, sequence.positions,
                       limits_.context);
  if (range.answer_count > range.count || (range.answer_count == 0) != (range.answer == AnswerKind::kNothing))
    return fmt::format("sequence {}: {} of {} rows answered", range.sequence.value, range.answer_count,
                       range.count);
  ++sequence.next_number;
  sequence.positions += range.count;
  return std::nullopt;
}

}  // namespace caravan
