#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/counters.h"
#include "base/mailbox.h"
#include "peers/doorkeeper.h"
#include "peers/session.h"
#include "peers/zmq_link.h"
#include "peers/zmq_socket.h"

namespace caravan {

// What the control thread must know at once about a neighbour; the wire thread writes it.
struct Outbox {
  std::atomic<bool> is_up{false};
  std::atomic<uint32_t> messages{0};  // taken by send() and not yet in a socket
  std::atomic<uint64_t> bytes{0};
  Counter bytes_in, bytes_out, messages_in, messages_out;
};

struct ConnectCommand {
  PeerKey peer;
  std::vector<std::string> endpoints;
};
struct DisconnectCommand {
  PeerKey peer;
};
struct SendCommand {
  PeerKey peer;
  Message message;
};
struct AllowCommand {
  PeerKey peer;
  bool is_allowed = true;
};
struct StopCommand {};
using WireCommand = std::variant<ConnectCommand, DisconnectCommand, SendCommand, AllowCommand, OpenTicket,
                                 Ticket, StopCommand>;

// The thread behind ZmqLink: owns the sockets, the sessions and who may enter.
class WireThread {
 public:
  WireThread(ZmqLinkOptions options, const Clock& clock, Random& random, ZmqLinkCallbacks callbacks);
  ~WireThread();
  WireThread(const WireThread&) = delete;
  WireThread& operator=(const WireThread&) = delete;

  // Any thread.
  const std::vector<std::string>& endpoints() const { return endpoints_; }
  std::shared_ptr<Outbox> outbox(const PeerKey& peer);
  // False when the mailbox is full.
  bool try_post(WireCommand&& command);
  void post(WireCommand command);
  uint64_t refused_strangers() const { return refused_.value(); }

 private:
  enum class Side : uint8_t { kOurs, kTheirs };  // who made a connection

  struct Connection {
    std::unique_ptr<Session> session;
    std::array<std::string, 2> routes;  // of kTheirs, by lane
    Time heard{}, next_ping{};
  };
  struct Dialer {
    std::vector<std::string> endpoints;
    size_t next_endpoint = 0;
    Duration retry{};
    Time next_try{}, deadline{};
    bool is_trying = false;
    std::array<ZmqSocket, 2> sockets;  // by lane; while trying or connected
    Connection connection;
    bool is_up = false;
  };
  struct Neighbour {
    PeerKey key;
    std::shared_ptr<Outbox> outbox;
    std::optional<Dialer> dialer;
    std::optional<Connection> theirs;
    std::optional<Connection> greeting;  // theirs, one lane of two has said hello
    std::optional<Side> active;          // where messages go out
  };
  struct Route {
    PeerKey peer;
    Lane lane = Lane::kDecode;
    uint64_t session = 0;
  };
  struct Enrolment {
    Ticket ticket;
    KeyPair keys;
    size_t next_endpoint = 0;
    ZmqSocket socket;
    Time deadline{};
    std::string reason;
  };

  // wire_thread.cpp: the loop.
  void run();
  void turn();
  void wait();
  Time next_timer() const;
  void tick(Time now);
  void tick(Neighbour& neighbour, Time now);
  void handle_commands();
  void handle(ConnectCommand&& command);
  void handle(DisconnectCommand&& command);
  void handle(SendCommand&& command);
  void handle(AllowCommand&& command);
  void handle(Ticket&& ticket);
  void serve_zap();
  void stop();
  Neighbour& neighbour(const PeerKey& key);

  // wire_connections.cpp: what happens on connections.
  void dial(Neighbour& neighbour, Time now);
  void read_dialer(Neighbour& neighbour);
  void on_dialer_frame(Neighbour& neighbour, Lane lane, ZmqParts& parts);
  void read_router();
  void on_router_frame(ZmqParts& parts);
  void on_hello(const std::string& route, const PeerKey& from, const Envelope& hello);
  void on_frame(Neighbour& neighbour, Side side, Lane lane, const Unpacked& first, SharedBytes second);
  void come_up(Neighbour& neighbour, Side side);
  void lose(Neighbour& neighbour, Side side, const std::string& reason, bool is_silent = false);
  void drop_dialer_sockets(Dialer& dialer);
  void drop_routes(Connection& connection);
  void pump(Neighbour& neighbour);
  Connection* connection(Neighbour& neighbour, Side side);
  bool transmit(Neighbour& neighbour, Side side, Lane lane, const ZmqPart& first, const ZmqPart& second = {});
  bool transmit(Neighbour& neighbour, Side side, Lane lane, const Envelope& envelope);
  void answer_route(const std::string& route, FrameKind kind, const std::string& text);

  // wire_enrol.cpp: tickets, on both sides.
  void on_enrol(const std::string& route, const PeerKey& one_time_key, const Unpacked& first);
  void enrol_next(Time now);
  void read_enrolment();
  void end_enrolment(const std::string& reason);

  const ZmqLinkOptions options_;
  const Clock& clock_;
  Random& random_;
  const ZmqLinkCallbacks callbacks_;
  std::vector<std::string> endpoints_;

  // Between threads.
  Mailbox<WireCommand> commands_;
  int wake_ = -1;              // an eventfd
  std::mutex outboxes_mutex_;  // the control thread looks outboxes up while the wire thread adds them
  std::map<PeerKey, std::shared_ptr<Outbox>> outboxes_;
  Counter refused_;

  // Of the wire thread.
  ZmqContext context_;
  ZmqSocket zap_, router_;
  Doorkeeper door_;
  std::map<PeerKey, Neighbour> neighbours_;
  std::map<std::string, Route> routes_;  // by routing id: the connections of greeting and theirs
  std::optional<Enrolment> enrolment_;
  uint64_t watches_made_ = 0;
  Time turned_{};
  bool is_stopping_ = false;

  std::thread thread_;
};

}  // namespace caravan
