#include "peers/shard_server.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"

namespace caravan {

void ShardServer::on(const PeerKey& from, const Message& message) {
  if (const auto* request = std::get_if<ShardRequest>(&message)) return handle(from, *request);
  if (!std::holds_alternative<ManifestRequest>(message)) return;
  if (!contents_ && unavailable_.empty() && !std::exchange(asked_, true)) actions_.emplace_back(HashModel{});
  tell_manifest(from);
}

void ShardServer::tell_manifest(const PeerKey& to) {
  ManifestInfo info;
  info.reason = unavailable_;
  info.hashed_bytes = hashed_bytes_;
  info.total_bytes = total_bytes_;
  if (contents_) {
    info.model = contents_->model;
    info.record = contents_->record;
    info.record_bytes = contents_->bytes.at(contents_->record);
  }
  actions_.emplace_back(SendMessage{to, std::move(info)});
}

void ShardServer::handle(const PeerKey& from, const ShardRequest& request) {
  if (!contents_) return refuse(from, request, "the hashes of its model are not known yet");
  const auto found = contents_->bytes.find(request.group);
  if (found == contents_->bytes.end()) return refuse(from, request, "it has no content of that hash");
  if (request.length == 0 || request.length > limits::kMaxShardRangeBytes || request.offset > found->second ||
      request.length > found->second - request.offset)
    return refuse(
        from, request,
        fmt::format("{} bytes from {} of {} are no range", request.length, request.offset, found->second));
  Client& client = clients_[from];
  // Nobody who counts what is under way comes here; an answer would only help whoever floods.
  if (client.owed_bytes + request.length > limits::kMaxShardBytesOwed) {
    if (refused_++ % 1024 == 0)
      log_warning("shard_flood peer={} owed={}", short_string(from), client.owed_bytes);
    return;
  }
  client.owed_bytes += request.length;
  client.waiting.push_back(request);
  read_next();
}

void ShardServer::refuse(const PeerKey& to, const ShardRequest& request, std::string reason) {
  ++refused_;
  actions_.emplace_back(SendMessage{to, ShardRefused{request.group, request.offset, std::move(reason)}});
}

// One range of a peer, then one of the next that waits.
void ShardServer::read_next() {
  while (reading_ < limits::kMaxShardReads) {
    auto next = clients_.upper_bound(served_);
    for (size_t tried = 0; tried < clients_.size(); ++tried, ++next) {
      if (next == clients_.end()) next = clients_.begin();
      if (!next->second.waiting.empty()) break;
    }
    if (next == clients_.end()) next = clients_.begin();
    if (next == clients_.end() || next->second.waiting.empty()) return;
    const ShardRequest request = next->second.waiting.front();
    next->second.waiting.pop_front();
    served_ = next->first;
    ++reading_;
    actions_.emplace_back(ReadShard{next->first, request.group, request.offset, request.length});
  }
}

void ShardServer::on(ShardRead event) {
  CHECK(reading_ > 0u);
  --reading_;
  const auto client = clients_.find(event.what.to);
  CHECK(client != clients_.end());
  client->second.owed_bytes -= event.what.length;
  if (client->second.owed_bytes == 0) clients_.erase(client);
  if (!event.error.empty()) {
    log_warning("shard_unreadable group={} reason=\"{}\"", short_string(event.what.group), event.error);
    refuse(event.what.to, {event.what.group, event.what.offset, event.what.length}, std::move(event.error));
  }
  uint64_t offset = event.what.offset;
  for (SharedBytes& part : event.parts) {
    const uint64_t bytes = part->size();
    actions_.emplace_back(SendMessage{event.what.to, ShardBytes{event.what.group, offset, std::move(part)}});
    offset += bytes;
  }
  read_next();
}

void ShardServer::lost(const PeerKey& peer) {
  const auto client = clients_.find(peer);
  if (client == clients_.end()) return;
  for (const ShardRequest& request : client->second.waiting) client->second.owed_bytes -= request.length;
  client->second.waiting.clear();
  if (client->second.owed_bytes == 0) clients_.erase(client);
}

void ShardServer::hashing(uint64_t bytes, uint64_t total) {
  hashed_bytes_ = bytes;
  total_bytes_ = total;
}

void ShardServer::hashed(ShardContents contents) {
  CHECK(contents.bytes.count(contents.record) == size_t{1});
  contents_ = std::move(contents);
}

void ShardServer::unavailable(std::string reason) {
  unavailable_ = std::move(reason);
}

uint64_t ShardServer::owed_bytes(const PeerKey& peer) const {
  const auto client = clients_.find(peer);
  return client == clients_.end() ? 0 : client->second.owed_bytes;
}

}  // namespace caravan
