#include "peers/pins.h"

#include <charconv>

#include "base/error.h"
#include "base/limits.h"

namespace caravan {
namespace {

constexpr std::string_view kPin = "pin/";
constexpr std::string_view kTicket = "ticket/";
constexpr char kVersion = '1';  // first byte of every value

PeerKey key_of(std::string_view record, std::string_view prefix) {
  PeerKey key;
  if (!from_hex(record.substr(prefix.size()), key.bytes.data(), key.bytes.size()))
    fail(ErrorCode::kMalformed, "pinned peers: the record \"{}\" names no key", record);
  return key;
}

std::string_view body(std::string_view record, std::string_view value) {
  if (value.empty() || value[0] != kVersion)
    fail(ErrorCode::kUnsupported, "pinned peers: the record \"{}\" is of another version", record);
  return value.substr(1);
}

std::string record(std::string_view prefix, const PeerKey& key) {
  return std::string(prefix) + to_string(key);
}

}  // namespace

void Pins::pin(const PeerKey& key, const std::string& name) {
  store_->put(record(kPin, key), kVersion + name.substr(0, limits::kMaxNameBytes));
}

void Pins::unpin(const PeerKey& key) {
  store_->erase(record(kPin, key));
}

std::optional<Pin> Pins::find(const PeerKey& key) const {
  const std::string name = record(kPin, key);
  const auto value = store_->get(name);
  if (!value) return std::nullopt;
  return Pin{key, std::string(body(name, *value))};
}

std::vector<Pin> Pins::all() const {
  std::vector<Pin> pins;
  store_->scan(kPin, [&](std::string_view name, std::string_view value) {
    pins.push_back({key_of(name, kPin), std::string(body(name, value))});
    return true;
  });
  return pins;
}

void Pins::add_ticket(const OpenTicket& ticket) {
  store_->put(record(kTicket, ticket.one_time_key), kVersion + std::to_string(ticket.expires_unix));
}

void Pins::spend_ticket(const PeerKey& one_time_key) {
  store_->erase(record(kTicket, one_time_key));
}

std::vector<OpenTicket> Pins::open_tickets(int64_t now_unix) {
  std::vector<OpenTicket> open, expired;
  store_->scan(kTicket, [&](std::string_view name, std::string_view value) {
    OpenTicket ticket;
    ticket.one_time_key = key_of(name, kTicket);
    const std::string_view digits = body(name, value);
    const char* end = digits.data() + digits.size();
    if (const auto [at, error] = std::from_chars(digits.data(), end, ticket.expires_unix);
        error != std::errc() || at != end)
      fail(ErrorCode::kMalformed, "pinned peers: the record \"{}\" holds no time", name);
    (ticket.is_expired(now_unix) ? expired : open).push_back(ticket);
    return true;
  });
  for (const OpenTicket& ticket : expired) spend_ticket(ticket.one_time_key);
  return open;
}

}  // namespace caravan
