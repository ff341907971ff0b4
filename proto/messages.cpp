#include "proto/messages.h"

#include <array>

namespace caravan {

std::string_view name(const Message& message) {
  static constexpr std::array<std::string_view, std::variant_size_v<Message>> kNames = {
      "hello", "welcome",   "refuse",  "heartbeat", "goodbye", "assign",     "contract",
      "ready", "not_ready", "release", "step",      "answer",  "step_failed"};
  return kNames[message.index()];
}

size_t queue_bytes(const Message& message) {
  constexpr size_t kHeader = 256;
  if (const auto* step = std::get_if<Step>(&message)) return kHeader + step->rows.byte_count();
  if (const auto* answer = std::get_if<Answer>(&message)) return kHeader + answer->rows.byte_count();
  return kHeader;
}

}  // namespace caravan
