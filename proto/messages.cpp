#include "proto/messages.h"

#include <array>

namespace caravan {

std::string_view name(const Message& message) {
  static constexpr std::array<std::string_view, std::variant_size_v<Message>> kNames = {
      "hello", "welcome",   "refuse",  "heartbeat", "goodbye", "assign",     "contract",
      "ready", "not_ready", "release", "step",      "answer",  "step_failed"};
  return kNames[message.index()];
}

bool is_for_head(const Message& message) {
  if (const auto* contract = std::get_if<Contract>(&message)) return contract->to_head;
  // A stage beside a head gets its heartbeats from that head, never from the wire.
  return std::holds_alternative<Hello>(message) || std::holds_alternative<Heartbeat>(message) ||
         std::holds_alternative<Goodbye>(message) || std::holds_alternative<Ready>(message) ||
         std::holds_alternative<NotReady>(message) || std::holds_alternative<Answer>(message) ||
         std::holds_alternative<StepFailed>(message);
}

size_t queue_bytes(const Message& message) {
  constexpr size_t kHeader = 256;
  if (const auto* step = std::get_if<Step>(&message)) return kHeader + step->rows.byte_count();
  if (const auto* answer = std::get_if<Answer>(&message)) return kHeader + answer->rows.byte_count();
  return kHeader;
}

}  // namespace caravan
