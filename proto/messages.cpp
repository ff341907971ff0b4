#include "proto/messages.h"

#include <array>

namespace caravan {

std::string_view name(const Message& message) {
  static constexpr std::array<std::string_view, std::variant_size_v<Message>> kNames = {
      "hello",         "welcome",          "refuse",        "heartbeat",
      "goodbye",       "assign",           "contract",      "ready",
      "not_ready",     "release",          "step",          "answer",
      "step_failed",   "manifest_request", "manifest_info", "shard_request",
      "shard_bytes",   "shard_refused",    "fetch",         "fetched",
      "archive_probe", "archive_limit"};
  return kNames[message.index()];
}

bool is_for_head(const Message& message) {
  if (const auto* contract = std::get_if<Contract>(&message)) return contract->to_head;
  if (const auto* probe = std::get_if<ArchiveProbe>(&message)) return probe->to_head;
  // A stage beside a head gets its heartbeats from that head, never from the wire.
  return std::holds_alternative<Hello>(message) || std::holds_alternative<Heartbeat>(message) ||
         std::holds_alternative<Goodbye>(message) || std::holds_alternative<Ready>(message) ||
         std::holds_alternative<NotReady>(message) || std::holds_alternative<Answer>(message) ||
         std::holds_alternative<StepFailed>(message) || std::holds_alternative<Fetched>(message);
}

bool is_for_shard_server(const Message& message) {
  return std::holds_alternative<ManifestRequest>(message) || std::holds_alternative<ShardRequest>(message);
}

bool is_for_shard_fetcher(const Message& message) {
  return std::holds_alternative<ManifestInfo>(message) || std::holds_alternative<ShardBytes>(message) ||
         std::holds_alternative<ShardRefused>(message);
}

const SharedBytes& payload(const Message& message) {
  static const SharedBytes kNone;
  if (const auto* step = std::get_if<Step>(&message)) return step->rows.bytes;
  if (const auto* answer = std::get_if<Answer>(&message)) return answer->rows.bytes;
  if (const auto* shard = std::get_if<ShardBytes>(&message)) return shard->bytes;
  return kNone;
}

size_t queue_bytes(const Message& message) {
  constexpr size_t kHeader = 256;
  const SharedBytes& bytes = payload(message);
  size_t tags = 0;
  if (const auto* step = std::get_if<Step>(&message)) tags = step->tags.size() + step->load_tags.size();
  if (const auto* probe = std::get_if<ArchiveProbe>(&message)) tags = probe->tags.size();
  return kHeader + tags * BlockTag::size() + (bytes ? bytes->size() : 0);
}

}  // namespace caravan
