#include "peers/shard_server.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/log.h"

namespace caravan {

void ShardServer::on(const PeerKey& from, const Message& message) {
  if (const auto* request = std::get_if<ShardRequest>(&message)) return handle(from, *request);
  if (!std::holds_alternative<ManifestRequest>(message)) return;
  takers_.insert(from);
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

// The next that waits and does not hold its share yet.
ShardServer::Clients::iterator ShardServer::next_in_turn() {
  auto next = clients_.upper_bound(served_);
  for (size_t tried = 0; tried < clients_.size(); ++tried, ++next) {
    if (next == clients_.end()) next = clients_.begin();
    const Client& client = next->second;
    if (client.waiting.empty()) continue;
    const uint64_t free = room_bytes_ - std::min(room_bytes_, held_bytes_);
    if (client.held_bytes == 0 || client.held_bytes + client.waiting.front().length <= free) return next;
  }
  return clients_.end();
}

// One range of a peer, then one of the next. Whose turn it is waits for room, and the others with it: small
// ranges would otherwise fill what a large one needs, for ever.
void ShardServer::read_next() {
  while (reading_ < limits::kMaxShardReads) {
    const auto next = next_in_turn();
    if (next == clients_.end()) return;
    Client& client = next->second;
    const ShardRequest request = client.waiting.front();
    if (held_bytes_ + request.length > room_bytes_) return;
    client.waiting.pop_front();
    client.held_bytes += request.length;
    held_bytes_ += request.length;
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
  uint64_t bytes = 0;
  for (const SharedBytes& part : event.parts) bytes += part->size();
  CHECK(bytes == (event.error.empty() ? event.what.length : 0u));
  if (!event.error.empty()) {
    log_warning("shard_unreadable group={} reason=\"{}\"", short_string(event.what.group), event.error);
    refuse(event.what.to, {event.what.group, event.what.offset, event.what.length}, std::move(event.error));
    return gone(event.what.to, event.what.length);
  }
  uint64_t offset = event.what.offset;
  for (SharedBytes& part : event.parts) {
    const uint64_t count = part->size();
    actions_.emplace_back(SendMessage{event.what.to, ShardBytes{event.what.group, offset, std::move(part)}});
    offset += count;
  }
  read_next();
}

void ShardServer::gone(const PeerKey& to, uint64_t bytes) {
  const auto client = clients_.find(to);
  CHECK(client != clients_.end());
  const uint64_t left = std::min(bytes, client->second.left_bytes);
  client->second.left_bytes -= left;
  bytes -= left;
  CHECK(bytes <= client->second.held_bytes);
  client->second.held_bytes -= bytes;
  held_bytes_ -= bytes;
  forget_if_done(client);
  read_next();
}

void ShardServer::lost(const PeerKey& peer) {
  takers_.erase(peer);
  const auto client = clients_.find(peer);
  if (client == clients_.end()) return;
  for (const ShardRequest& request : client->second.waiting) client->second.owed_bytes -= request.length;
  client->second.waiting.clear();
  held_bytes_ -= client->second.held_bytes;
  client->second.left_bytes += std::exchange(client->second.held_bytes, 0);
  forget_if_done(client);
  read_next();
}

void ShardServer::forget_if_done(Clients::iterator client) {
  const Client& one = client->second;
  if (one.owed_bytes == 0 && one.held_bytes == 0 && one.left_bytes == 0) clients_.erase(client);
}

void ShardServer::set_room(uint64_t bytes) {
  room_bytes_ = std::clamp<uint64_t>(bytes, limits::kLeastShardBytesHeld, limits::kMostShardBytesHeld);
  read_next();
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

uint64_t ShardServer::held_bytes(const PeerKey& peer) const {
  const auto client = clients_.find(peer);
  return client == clients_.end() ? 0 : client->second.held_bytes;
}

}  // namespace caravan
