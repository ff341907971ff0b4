#include "daemon/http_server.h"

#include <utility>  // Asio 1.74 needs it before its own headers in C++20

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>
#include <ctime>
#include <optional>
#include <set>
#include <string>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/log.h"

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;
using tcp = asio::ip::tcp;

namespace caravan {

namespace {

// Past the head's limit, so that a request behind another one can be read ahead while that is answered.
constexpr size_t kReadAheadBytes = 64u << 10;
// Read at a time: so much each of many connections holds.
constexpr size_t kReadBytes = 16u << 10;
// Connections beyond the limit that still get a refusal instead of a cut.
constexpr uint32_t kRefusedConnections = 32;
constexpr Duration kLingerTimeout = std::chrono::seconds(2);
constexpr Duration kAcceptRetry = std::chrono::milliseconds(100);

std::string http_date() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[40];
  const size_t length = std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts);
  return std::string(text, length);
}

std::string_view view(boost::beast::string_view text) {
  return {text.data(), text.size()};
}

int refusal_status(const error_code& error) {
  if (error == http::error::body_limit) return 413;
  if (error == http::error::header_limit) return 431;
  if (error == http::error::bad_version) return 505;
  return 400;
}

std::string refusal_reason(const error_code& error, const HttpServerOptions& options) {
  if (error == http::error::body_limit)
    return "the body is longer than " + to_string(Bytes{options.max_body_bytes});
  if (error == http::error::header_limit)
    return "the request's head is longer than " + to_string(Bytes{options.max_header_bytes});
  if (error == http::error::bad_version) return "HTTP/1.1 and HTTP/1.0 are spoken here";
  return error.message();
}

void set_target(HttpRequest& request, std::string_view target) {
  // The absolute form, as proxies get it: the authority is the Host header's business.
  if (const size_t scheme = target.find("://"); scheme != std::string_view::npos && target.front() != '/') {
    const size_t slash = target.find('/', scheme + 3);
    target = slash == std::string_view::npos ? std::string_view("/") : target.substr(slash);
  }
  const size_t question = target.find('?');
  request.path = target.substr(0, question);
  if (question != std::string_view::npos) request.query = target.substr(question + 1);
}

// Asio reports one handler's lateness in another's success: only the time itself tells.
bool has_passed(const asio::steady_timer& timer) {
  return timer.expiry() <= std::chrono::steady_clock::now();
}

}  // namespace

// What the server and its connections share; it outlives the server while handlers of closed sockets are
// queued.
class HttpServer::Shared : public std::enable_shared_from_this<Shared> {
 public:
  Shared(EventLoop& event_loop, HttpServerOptions server_options, HttpHandler& http_handler)
      : loop(event_loop),
        options(std::move(server_options)),
        handler(&http_handler),
        address(options.address),
        acceptor(loop.context()),
        retry(loop.context()) {}
  void listen();
  void accept();
  void close();
  // Whether the others leave room for this much of one connection.
  bool has_room(const Connection& one, size_t (Connection::*bytes_of)() const, size_t most) const;

  EventLoop& loop;
  const HttpServerOptions options;
  HttpHandler* handler;  // null once the server is gone
  HostPort address;
  std::set<std::shared_ptr<Connection>> connections;

 private:
  void add(tcp::socket socket);
  // Makes room for a new connection at the cost of the one that has been idle longest.
  void close_an_idle_one();

  tcp::acceptor acceptor;
  asio::steady_timer retry;
};

// One client. A single read is outstanding nearly always: during an answer it notices that the client left,
// and reads a little ahead. Writes come from one queue.
class HttpServer::Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(std::shared_ptr<Shared> shared, tcp::socket socket, bool refused)
      : shared_(std::move(shared)),
        socket_(std::move(socket)),
        deadline_(shared_->loop.context()),
        refused_(refused),
        buffer_(shared_->options.max_header_bytes + kReadAheadBytes) {
    error_code ignored;
    const auto endpoint = socket_.remote_endpoint(ignored);
    if (!ignored) peer_ = endpoint.address().to_string(ignored);
  }

  void start();
  // Ends the connection; an unfinished request hears of it in a task of its own.
  void close();
  // Tells the unfinished request, if there is one, and forgets the connection.
  void leave();
  bool is_idle() const { return phase_ == Phase::kIdle; }
  // Of the request that is being received.
  size_t body_bytes() const { return phase_ == Phase::kBody ? parser_->get().body().size() : 0; }
  // Of the answer that the client has not read.
  size_t waiting_bytes() const {
    return phase_ == Phase::kClosed ? 0 : queue_.size() + writing_.size() - written_;
  }
  std::chrono::steady_clock::time_point deadline() const { return deadline_.expiry(); }

  // For the exchange numbered `serial`; ignored when that is over.
  void send_head(uint64_t serial, const HttpResponse& response, bool stream);
  void send_piece(uint64_t serial, std::string_view piece);
  void end_answer(uint64_t serial);
  void drop(uint64_t serial, bool stream);
  void set_on_disconnect(uint64_t serial, std::function<void()> callback);

 private:
  enum class Phase { kIdle, kHead, kBody, kAnswering, kLingering, kClosed };
  using Parser = http::request_parser<http::string_body>;

  void expect_request();
  void read();
  void on_read(const error_code& error, size_t bytes);
  void on_end_of_stream();
  void parse();
  void on_head();
  void on_request();
  void refuse(int status, std::string_view reason);
  void queue(std::string text);
  void write();
  void on_written(const error_code& error, size_t bytes);
  void on_answered();
  void linger();
  void set_deadline(Duration duration);
  void clear_deadline() { deadline_.expires_at(std::chrono::steady_clock::time_point::max()); }
  void on_deadline();
  bool current(uint64_t serial) const {
    return serial == serial_ && phase_ == Phase::kAnswering && !answered_;
  }

  const std::shared_ptr<Shared> shared_;
  tcp::socket socket_;
  asio::steady_timer deadline_;
  const bool refused_;  // one connection too many
  std::string peer_;
  Phase phase_ = Phase::kIdle;

  boost::beast::flat_buffer buffer_;
  std::optional<Parser> parser_;
  bool reading_ = false;

  uint64_t serial_ = 0;  // of the request that is answered
  bool answered_ = false;
  bool keep_alive_ = false;
  bool http_1_0_ = false;
  bool chunked_ = false;
  bool without_body_ = false;  // HEAD
  std::function<void()> on_disconnect_;

  std::string queue_, writing_;  // what waits; what the socket is taking
  size_t written_ = 0;           // of writing_
};

class HttpServer::Exchange final : public HttpResponder {
 public:
  Exchange(std::shared_ptr<Connection> connection, uint64_t serial)
      : connection_(std::move(connection)), serial_(serial) {}
  ~Exchange() override {
    if (state_ != State::kDone) connection_->drop(serial_, state_ == State::kStream);
  }
  void send(HttpResponse response) override {
    CHECK(state_ == State::kNew);
    state_ = State::kDone;
    connection_->send_head(serial_, response, false);
  }
  void start_stream(HttpResponse head) override {
    CHECK(state_ == State::kNew);
    state_ = State::kStream;
    connection_->send_head(serial_, head, true);
  }
  void write(std::string_view piece) override {
    CHECK(state_ == State::kStream);
    connection_->send_piece(serial_, piece);
  }
  void end() override {
    CHECK(state_ == State::kStream);
    state_ = State::kDone;
    connection_->end_answer(serial_);
  }
  void on_disconnect(std::function<void()> callback) override {
    connection_->set_on_disconnect(serial_, std::move(callback));
  }

 private:
  enum class State { kNew, kStream, kDone };
  const std::shared_ptr<Connection> connection_;
  const uint64_t serial_;
  State state_ = State::kNew;
};

void HttpServer::Connection::start() {
  error_code ignored;
  socket_.set_option(tcp::no_delay(true), ignored);
  expect_request();
}

void HttpServer::Connection::expect_request() {
  phase_ = Phase::kIdle;
  parser_.emplace();
  parser_->header_limit(static_cast<uint32_t>(shared_->options.max_header_bytes));
  parser_->body_limit(shared_->options.max_body_bytes);
  set_deadline(shared_->options.idle_timeout);
  if (buffer_.size() > 0) return parse();
  read();
}

void HttpServer::Connection::read() {
  if (reading_ || phase_ == Phase::kClosed) return;
  const size_t room = buffer_.max_size() - buffer_.size();
  if (room == 0) return;
  reading_ = true;
  socket_.async_read_some(buffer_.prepare(std::min(room, kReadBytes)),
                          [self = shared_from_this()](const error_code& error, size_t bytes) {
                            self->reading_ = false;
                            self->on_read(error, bytes);
                          });
}

void HttpServer::Connection::on_read(const error_code& error, size_t bytes) {
  if (phase_ == Phase::kClosed) return;
  if (error == asio::error::eof) return on_end_of_stream();
  if (error) return close();
  if (phase_ == Phase::kLingering) return read();
  buffer_.commit(bytes);
  if (phase_ == Phase::kAnswering) return read();
  parse();
}

void HttpServer::Connection::on_end_of_stream() {
  // A whole answer under way is still wanted; a generation for someone who left is not.
  if (phase_ == Phase::kAnswering && answered_)
    keep_alive_ = false;
  else
    close();
}

void HttpServer::Connection::parse() {
  while (buffer_.size() > 0) {
    if (phase_ == Phase::kIdle) {
      phase_ = Phase::kHead;
      set_deadline(shared_->options.head_timeout);
    }
    error_code error;
    buffer_.consume(parser_->put(buffer_.data(), error));
    if (error == http::error::need_more) {
      if (buffer_.size() == buffer_.max_size()) return refuse(400, "a chunk's head is too long");
      break;
    }
    if (error) return refuse(refusal_status(error), refusal_reason(error, shared_->options));
    if (phase_ == Phase::kHead && parser_->is_header_done()) on_head();
    if (!shared_->has_room(*this, &Connection::body_bytes, shared_->options.max_bodies_bytes))
      return refuse(503, "other requests as long as this one are being received; try again");
    if (parser_->is_done()) return on_request();
  }
  read();
}

void HttpServer::Connection::on_head() {
  phase_ = Phase::kBody;
  parser_->eager(true);
  set_deadline(shared_->options.body_timeout);
  const auto& message = parser_->get();
  if (!parser_->is_done() && message.version() >= 11 &&
      lower_case(view(message[http::field::expect])) == "100-continue")
    queue("HTTP/1.1 100 Continue\r\n\r\n");
}

void HttpServer::Connection::on_request() {
  auto message = parser_->release();
  keep_alive_ = message.keep_alive() && !refused_;
  http_1_0_ = message.version() < 11;
  if (refused_) return refuse(503, "too many connections");
  if (message.count(http::field::host) != (http_1_0_ ? message.count(http::field::host) : 1))
    return refuse(400, "a request of HTTP/1.1 has one Host header");

  HttpRequest request;
  request.method = view(message.method_string());
  set_target(request, view(message.target()));
  for (const auto& field : message)
    request.headers.emplace_back(lower_case(view(field.name_string())), view(field.value()));
  request.body = std::move(message.body());
  request.peer = peer_;

  phase_ = Phase::kAnswering;
  clear_deadline();
  answered_ = chunked_ = false;
  without_body_ = request.method == "HEAD";
  ++serial_;
  try {
    shared_->handler->handle(std::move(request), std::make_shared<Exchange>(shared_from_this(), serial_));
  } catch (const std::exception& error) {
    log_error("http_request_failed peer={} reason={}", peer_, error.what());
  }
  read();
}

void HttpServer::Connection::refuse(int status, std::string_view reason) {
  phase_ = Phase::kAnswering;
  clear_deadline();
  answered_ = chunked_ = keep_alive_ = false;
  parser_.emplace();  // what came of the body goes
  ++serial_;
  send_head(serial_, shared_->handler->refusal(status, reason), false);
}

void HttpServer::Connection::send_head(uint64_t serial, const HttpResponse& response, bool stream) {
  if (!current(serial)) return;
  chunked_ = stream && !http_1_0_ && !without_body_;
  if (stream && http_1_0_) keep_alive_ = false;  // the end of the connection ends the body
  std::string head = fmt::format("HTTP/1.1 {} {}\r\nDate: {}\r\n", response.status,
                                 http_reason(response.status), http_date());
  if (!response.content_type.empty()) head += fmt::format("Content-Type: {}\r\n", response.content_type);
  for (const auto& [name, value] : response.headers) head += fmt::format("{}: {}\r\n", name, value);
  if (chunked_) head += "Transfer-Encoding: chunked\r\n";
  if (!stream && response.status != 204) head += fmt::format("Content-Length: {}\r\n", response.body.size());
  if (!keep_alive_) head += "Connection: close\r\n";
  if (keep_alive_ && http_1_0_) head += "Connection: keep-alive\r\n";
  head += "\r\n";
  if (!stream) {
    if (!without_body_) head += response.body;
    answered_ = true;
    on_disconnect_ = nullptr;
  }
  queue(std::move(head));
  if (stream) send_piece(serial, response.body);
}

void HttpServer::Connection::send_piece(uint64_t serial, std::string_view piece) {
  if (!current(serial) || piece.empty() || without_body_) return;
  const auto& options = shared_->options;
  if (waiting_bytes() + piece.size() > options.max_queue_bytes ||
      !shared_->has_room(*this, &Connection::waiting_bytes, options.max_queues_bytes)) {
    log_warning("http_slow_reader peer={} waiting_bytes={}", peer_, waiting_bytes());
    return close();
  }
  queue(chunked_ ? fmt::format("{:x}\r\n{}\r\n", piece.size(), piece) : std::string(piece));
}

void HttpServer::Connection::end_answer(uint64_t serial) {
  if (!current(serial)) return;
  answered_ = true;
  on_disconnect_ = nullptr;
  if (chunked_) return queue("0\r\n\r\n");
  if (writing_.empty()) on_answered();
}

void HttpServer::Connection::drop(uint64_t serial, bool stream) {
  if (!current(serial)) return;
  if (stream) return close();
  send_head(serial, shared_->handler->refusal(500, "the request was dropped"), false);
}

void HttpServer::Connection::set_on_disconnect(uint64_t serial, std::function<void()> callback) {
  if (current(serial))
    on_disconnect_ = std::move(callback);
  else if (serial == serial_ && phase_ == Phase::kClosed && !answered_)
    shared_->loop.post(std::move(callback));
}

void HttpServer::Connection::queue(std::string text) {
  if (queue_.empty())
    queue_ = std::move(text);
  else
    queue_ += text;
  if (writing_.empty()) write();
}

void HttpServer::Connection::write() {
  if (written_ == writing_.size()) {
    writing_ = std::exchange(queue_, {});
    written_ = 0;
  }
  if (phase_ == Phase::kAnswering) set_deadline(shared_->options.write_timeout);
  socket_.async_write_some(
      asio::buffer(writing_.data() + written_, writing_.size() - written_),
      [self = shared_from_this()](const error_code& error, size_t bytes) { self->on_written(error, bytes); });
}

void HttpServer::Connection::on_written(const error_code& error, size_t bytes) {
  if (phase_ == Phase::kClosed) return;
  if (error) return close();
  written_ += bytes;
  if (written_ < writing_.size() || !queue_.empty()) return write();
  writing_.clear();
  written_ = 0;
  if (phase_ != Phase::kAnswering) return;
  clear_deadline();
  if (answered_) on_answered();
}

void HttpServer::Connection::on_answered() {
  if (!keep_alive_) return linger();
  expect_request();
}

// Closing at once would reset the connection under unread bytes, and the client might lose the answer.
void HttpServer::Connection::linger() {
  phase_ = Phase::kLingering;
  error_code ignored;
  socket_.shutdown(tcp::socket::shutdown_send, ignored);
  set_deadline(kLingerTimeout);
  buffer_.consume(buffer_.size());
  read();
}

void HttpServer::Connection::set_deadline(Duration duration) {
  deadline_.expires_after(duration);
  deadline_.async_wait([self = shared_from_this()](const error_code& error) {
    if (!error && has_passed(self->deadline_)) self->on_deadline();
  });
}

void HttpServer::Connection::on_deadline() {
  if (phase_ == Phase::kHead || phase_ == Phase::kBody) return refuse(408, "the request took too long");
  close();
}

void HttpServer::Connection::close() {
  if (phase_ == Phase::kClosed) return;
  phase_ = Phase::kClosed;
  error_code ignored;
  socket_.close(ignored);
  clear_deadline();
  if (on_disconnect_)
    shared_->loop.post([self = shared_from_this()] { self->leave(); });
  else
    leave();
}

void HttpServer::Connection::leave() {
  if (const auto callback = std::exchange(on_disconnect_, nullptr)) callback();
  shared_->connections.erase(shared_from_this());
}

void HttpServer::Shared::listen() {
  const auto refuse = [&](const char* what, const error_code& error) {
    fail(ErrorCode::kIo, "cannot {} {}: {}", what, options.address.to_string(), error.message());
  };
  error_code error;
  const auto host = asio::ip::make_address(options.address.host, error);
  if (error) refuse("understand the address", error);
  const tcp::endpoint endpoint(host, options.address.port);
  acceptor.open(endpoint.protocol(), error);
  if (error) refuse("open a socket for", error);
  acceptor.set_option(tcp::acceptor::reuse_address(true));
  if (host.is_v6()) acceptor.set_option(asio::ip::v6_only(!host.is_unspecified()), error);
  acceptor.bind(endpoint, error);
  if (error == asio::error::address_in_use)
    fail(ErrorCode::kIo, "cannot listen on {}: something listens there already; --api {}:0 takes a free port",
         options.address.to_string(), options.address.host);
  if (error) refuse("listen on", error);
  acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) refuse("listen on", error);
  address.port = acceptor.local_endpoint().port();
}

void HttpServer::Shared::accept() {
  acceptor.async_accept([self = shared_from_this()](const error_code& error, tcp::socket socket) {
    if (!self->handler) return;
    if (!error) {
      self->add(std::move(socket));
      return self->accept();
    }
    // Out of file descriptors, most likely: wait until some connection ends.
    log_warning("http_accept_failed reason={}", error.message());
    self->retry.expires_after(kAcceptRetry);
    self->retry.async_wait([self](const error_code& cancelled) {
      if (!cancelled && self->handler) self->accept();
    });
  });
}

void HttpServer::Shared::add(tcp::socket socket) {
  if (connections.size() >= options.max_connections) close_an_idle_one();
  const bool refused = connections.size() >= options.max_connections;
  if (connections.size() >= options.max_connections + kRefusedConnections)
    return;  // the socket closes itself
  const auto connection = std::make_shared<Connection>(shared_from_this(), std::move(socket), refused);
  connections.insert(connection);
  connection->start();
}

bool HttpServer::Shared::has_room(const Connection& one, size_t (Connection::*bytes_of)() const,
                                  size_t most) const {
  // What each may have by itself is not counted, as long as there are no more than may be.
  if ((one.*bytes_of)() <= most / options.max_connections) return true;
  size_t others = 0;
  for (const auto& connection : connections)
    if (connection.get() != &one) others += (*connection.*bytes_of)();
  return others == 0 || others + (one.*bytes_of)() <= most;
}

void HttpServer::Shared::close_an_idle_one() {
  std::shared_ptr<Connection> oldest;
  for (const auto& connection : connections)
    if (connection->is_idle() && (!oldest || connection->deadline() < oldest->deadline()))
      oldest = connection;
  if (oldest) oldest->close();
}

void HttpServer::Shared::close() {
  handler = nullptr;
  error_code ignored;
  acceptor.close(ignored);
  retry.cancel();
  const auto all = connections;
  for (const auto& connection : all) {
    connection->close();
    connection->leave();
  }
}

HttpServer::HttpServer(EventLoop& loop, HttpServerOptions options, HttpHandler& handler)
    : shared_(std::make_shared<Shared>(loop, std::move(options), handler)) {
  shared_->listen();
  shared_->accept();
}

HttpServer::~HttpServer() {
  shared_->close();
}

const HostPort& HttpServer::address() const {
  return shared_->address;
}
uint32_t HttpServer::connections() const {
  return static_cast<uint32_t>(shared_->connections.size());
}

}  // namespace caravan
