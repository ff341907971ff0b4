#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/random.h"
#include "peers/keys.h"

namespace caravan {

using TicketSecret = Blob<struct TicketSecretTag, 16>;

// What admits one peer, once: where the head is, who it is, and the secret that seeds a one-time key pair.
struct Ticket {
  std::vector<std::string> endpoints;  // of the head, 1 to limits::kMaxEndpoints
  PeerKey head;
  TicketSecret secret;
  int64_t expires_unix = 0;  // 0: never
};

Ticket make_ticket(const PeerKey& head, std::vector<std::string> endpoints, int64_t expires_unix,
                   Random& random);

// One line, "caravan1:" and base64url with a checksum.
std::string to_text(const Ticket& ticket);
// White space around it is ignored. Throws kInvalidArgument for what is no ticket (a mistyped one included),
// kUnsupported for a ticket of another version.
Ticket parse_ticket(std::string_view text);

// The key pair that this ticket is worth: its holder and its maker compute the same.
KeyPair one_time_keys(const Ticket& ticket);

// What the head keeps of a ticket that it made: not the secret.
struct OpenTicket {
  PeerKey one_time_key;
  int64_t expires_unix = 0;
  bool is_expired(int64_t now_unix) const { return expires_unix != 0 && now_unix >= expires_unix; }
};
inline OpenTicket open_ticket(const Ticket& ticket) {
  return {one_time_keys(ticket).public_key, ticket.expires_unix};
}

}  // namespace caravan
