#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/random.h"
#include "daemon/event_loop.h"
#include "peers/ticket.h"

namespace caravan {

// How `caravan invite` hands a running head a new ticket: through a folder in the state folder, which only
// its owner can read. What is handed over is the ticket's public half; the secret goes to the joiner alone.

// The head's side: takes tickets out of the folder, a few times a second. Control thread.
class Invitations {
 public:
  using Accept = std::function<void(const OpenTicket& ticket)>;
  // Throws kIo naming the folder.
  Invitations(EventLoop& loop, const std::string& state_folder, Accept accept);
  ~Invitations();
  Invitations(const Invitations&) = delete;
  Invitations& operator=(const Invitations&) = delete;

 private:
  void look();

  EventLoop& loop_;
  const std::string folder_;
  const Accept accept_;
  std::optional<TimerId> timer_;
};

// The other side: leaves the ticket there and waits until the head has taken it. Throws kTimeout when it does
// not.
void hand_over(const std::string& state_folder, const OpenTicket& ticket, Duration patience);

}  // namespace caravan
