#include "daemon/http_client.h"

#include <utility>  // Asio 1.74 needs it before its own headers in C++20

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <limits>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/limits.h"

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;
using tcp = asio::ip::tcp;

namespace caravan {

// One request and its answer. Handlers of a closed socket may run after the client is done with it.
class HttpClient::Exchange : public std::enable_shared_from_this<Exchange> {
 public:
  using OnPiece = std::function<void(std::string_view)>;

  Exchange(EventLoop& loop, const HostPort& server, const HttpClientOptions& options, std::string request,
           OnPiece on_piece)
      : loop_(loop),
        server_(server),
        options_(options),
        socket_(loop.context()),
        request_(std::move(request)),
        on_piece_(std::move(on_piece)) {
    parser_.header_limit(limits::kMaxHttpHeaderBytes);
    // Streams have no end that is known; answers that are kept are counted here.
    parser_.body_limit(std::numeric_limits<uint64_t>::max());
  }

  void start() {
    const tcp::endpoint endpoint(asio::ip::make_address(server_.host), server_.port);
    set_deadline(options_.connect_timeout);
    socket_.async_connect(endpoint, [self = shared_from_this()](const error_code& error) {
      if (error)
        return self->fail_with(
            ErrorCode::kUnavailable,
            fmt::format("no daemon answers ({}); start one with 'caravan serve MODEL'", error.message()));
      self->write();
    });
  }
  void abort() {
    aborted_ = true;
    finish();
  }
  void close() {
    on_piece_ = nullptr;
    finish();
  }
  bool done() const { return done_; }
  bool aborted() const { return aborted_; }
  const std::optional<Error>& error() const { return error_; }
  HttpResponse take_response() { return std::move(response_); }

 private:
  void write() {
    set_deadline(options_.silence_timeout);
    asio::async_write(
        socket_, asio::buffer(request_), [self = shared_from_this()](const error_code& error, size_t) {
          // The answer may be there though the server did not read everything.
          if (error && error != asio::error::broken_pipe && error != asio::error::connection_reset)
            return self->fail_with(ErrorCode::kUnavailable, error.message());
          self->read_head();
        });
  }
  void read_head() {
    http::async_read_header(socket_, buffer_, parser_,
                            [self = shared_from_this()](const error_code& error, size_t) {
                              if (error) return self->fail_on_read(error);
                              self->take_head();
                              self->read_body();
                            });
  }
  void take_head() {
    const auto& message = parser_.get();
    response_.status = static_cast<int>(message.result_int());
    const auto type = message[http::field::content_type];
    response_.content_type.assign(type.data(), type.size());
    streams_ = on_piece_ && response_.status == 200;
  }
  void read_body() {
    if (done_) return;
    if (parser_.is_done()) return finish();
    set_deadline(options_.silence_timeout);
    parser_.get().body().data = piece_.data();
    parser_.get().body().size = piece_.size();
    http::async_read_some(socket_, buffer_, parser_, [self = shared_from_this()](error_code error, size_t) {
      if (error == http::error::need_buffer) error = {};
      if (error) return self->fail_on_read(error);
      self->take_piece();
    });
  }
  void take_piece() {
    if (done_) return;
    const size_t size = piece_.size() - parser_.get().body().size;
    const std::string_view piece(piece_.data(), size);
    if (streams_) {
      if (!piece.empty()) on_piece_(piece);
    } else {
      if (response_.body.size() + size > options_.max_body_bytes)
        return fail_with(ErrorCode::kLimit,
                         fmt::format("the answer has more than {} bytes", options_.max_body_bytes));
      response_.body += piece;
    }
    read_body();
  }
  void fail_on_read(const error_code& error) {
    const bool broken = error.category() == http::make_error_code(http::error::bad_status).category() &&
                        error != http::error::end_of_stream && error != http::error::partial_message;
    fail_with(broken ? ErrorCode::kMalformed : ErrorCode::kUnavailable,
              error == http::error::end_of_stream || error == http::error::partial_message
                  ? "the connection ended before the answer did"
                  : error.message());
  }
  void fail_with(ErrorCode code, const std::string& reason) {
    if (done_) return;
    error_.emplace(code, fmt::format("{}: {}", server_.to_string(), reason));
    finish();
  }
  void finish() {
    if (std::exchange(done_, true)) return;
    loop_.cancel(deadline_);
    error_code ignored;
    socket_.close(ignored);
  }
  void set_deadline(Duration duration) {
    loop_.cancel(deadline_);
    deadline_ = loop_.after(duration, [self = weak_from_this()] {
      if (const auto exchange = self.lock()) exchange->fail_with(ErrorCode::kTimeout, "no answer in time");
    });
  }

  EventLoop& loop_;
  const HostPort server_;
  const HttpClientOptions options_;
  tcp::socket socket_;
  const std::string request_;
  OnPiece on_piece_;
  boost::beast::flat_buffer buffer_;
  http::response_parser<http::buffer_body> parser_;
  std::array<char, 16384> piece_{};
  TimerId deadline_;
  HttpResponse response_;
  std::optional<Error> error_;
  bool streams_ = false, done_ = false, aborted_ = false;
};

HttpClient::HttpClient(EventLoop& loop, HostPort server, std::string api_key, HttpClientOptions options)
    : loop_(loop), server_(std::move(server)), api_key_(std::move(api_key)), options_(options) {
  if (!is_printable(api_key_))
    fail(ErrorCode::kInvalidArgument, "--api-key: a key has no control characters");
}
HttpClient::~HttpClient() = default;

HttpResponse HttpClient::request(std::string_view method, std::string_view target, std::string body) {
  HttpResponse response;
  stream(method, target, std::move(body), nullptr, response);
  return response;
}

bool HttpClient::stream(std::string_view method, std::string_view target, std::string body,
                        const std::function<void(std::string_view)>& on_piece, HttpResponse& response) {
  std::string text =
      fmt::format("{} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", method, target, server_.to_string());
  if (!api_key_.empty()) text += fmt::format("Authorization: Bearer {}\r\n", api_key_);
  if (!body.empty()) text += "Content-Type: application/json\r\n";
  text += fmt::format("Content-Length: {}\r\n\r\n{}", body.size(), body);
  const auto exchange = std::make_shared<Exchange>(loop_, server_, options_, std::move(text), on_piece);
  running_ = exchange;
  exchange->start();
  try {
    while (!loop_.run_until([&] { return exchange->done(); }, std::chrono::hours(1))) {
    }
  } catch (...) {
    // From a piece's taker or a task of someone else: nothing of this call may be touched later.
    exchange->close();
    running_.reset();
    throw;
  }
  running_.reset();
  exchange->close();
  if (exchange->error()) throw *exchange->error();
  response = exchange->take_response();
  return !exchange->aborted();
}

void HttpClient::abort() {
  if (running_) running_->abort();
}

}  // namespace caravan
