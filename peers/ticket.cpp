#include "peers/ticket.h"

#include <sodium.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/limits.h"
#include "peers/endpoint.h"

namespace caravan {
namespace {

constexpr std::string_view kWord = "caravan";
constexpr std::string_view kPrefix = "caravan1:";
constexpr size_t kChecksumBytes = 4;
constexpr int kVariant = sodium_base64_VARIANT_URLSAFE_NO_PADDING;

std::array<uint8_t, kChecksumBytes> checksum(std::span<const uint8_t> bytes) {
  const Hash256 hash = sha256(std::as_bytes(bytes));
  std::array<uint8_t, kChecksumBytes> out;
  std::copy_n(hash.bytes.begin(), kChecksumBytes, out.begin());
  return out;
}

[[noreturn]] void fail_no_ticket(const char* why) {
  fail(ErrorCode::kInvalidArgument,
       "this is no ticket ({}); a ticket is the line that `caravan invite` prints", why);
}

// Reads what to_text() wrote; every length is held against what is left.
struct Reader {
  std::span<const uint8_t> rest;
  std::span<const uint8_t> take(size_t bytes) {
    if (rest.size() < bytes) fail_no_ticket("it is cut short");
    const auto out = rest.first(bytes);
    rest = rest.subspan(bytes);
    return out;
  }
  template <class B>
  void take(B& blob) {
    const auto bytes = take(blob.bytes.size());
    std::copy(bytes.begin(), bytes.end(), blob.bytes.begin());
  }
};

std::vector<uint8_t> bytes_of(std::string_view text) {
  if (text.empty()) fail_no_ticket("nothing stands in it");
  if (text.size() > limits::kMaxTicketBytes) fail_no_ticket("it is too long");
  std::vector<uint8_t> out(text.size());
  size_t size = 0;
  const char* end = nullptr;
  CHECK(sodium_init() >= 0);
  if (sodium_base642bin(out.data(), out.size(), text.data(), text.size(), nullptr, &size, &end, kVariant) !=
          0 ||
      end != text.data() + text.size())
    fail_no_ticket("letters that do not belong there");
  out.resize(size);
  return out;
}

}  // namespace

Ticket make_ticket(const PeerKey& head, std::vector<std::string> endpoints, int64_t expires_unix,
                   Random& random) {
  Ticket ticket;
  ticket.head = head;
  ticket.expires_unix = expires_unix;
  for (const std::string& endpoint : endpoints)
    ticket.endpoints.push_back(to_string(parse_endpoint(endpoint, false)));
  if (ticket.endpoints.empty() || ticket.endpoints.size() > limits::kMaxEndpoints)
    fail(ErrorCode::kInvalidArgument, "a ticket with {} addresses, 1 to {} are allowed",
         ticket.endpoints.size(), limits::kMaxEndpoints);
  random.fill(ticket.secret.bytes);
  return ticket;
}

std::string to_text(const Ticket& ticket) {
  std::vector<uint8_t> bytes(ticket.head.bytes.begin(), ticket.head.bytes.end());
  bytes.insert(bytes.end(), ticket.secret.bytes.begin(), ticket.secret.bytes.end());
  for (int i = 0; i < 8; ++i)
    bytes.push_back(static_cast<uint8_t>(static_cast<uint64_t>(ticket.expires_unix) >> (8 * i)));
  bytes.push_back(static_cast<uint8_t>(ticket.endpoints.size()));
  for (const std::string& endpoint : ticket.endpoints) {
    CHECK(endpoint.size() <= limits::kMaxNameBytes);
    bytes.push_back(static_cast<uint8_t>(endpoint.size() & 0xff));
    bytes.push_back(static_cast<uint8_t>(endpoint.size() >> 8));
    bytes.insert(bytes.end(), endpoint.begin(), endpoint.end());
  }
  const auto sum = checksum(bytes);
  bytes.insert(bytes.end(), sum.begin(), sum.end());
  std::string text(sodium_base64_encoded_len(bytes.size(), kVariant), '\0');
  CHECK(sodium_init() >= 0);
  sodium_bin2base64(text.data(), text.size(), bytes.data(), bytes.size(), kVariant);
  text.pop_back();  // the terminating zero
  return std::string(kPrefix) + text;
}

Ticket parse_ticket(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) fail_no_ticket("it is empty");
  text = text.substr(first, text.find_last_not_of(kSpace) - first + 1);
  if (text.substr(0, kPrefix.size()) != kPrefix) {
    const size_t colon = text.substr(0, kPrefix.size() + 8).find(':');
    const bool versioned = text.substr(0, kWord.size()) == kWord && colon != std::string_view::npos &&
                           colon > kWord.size() && text[kWord.size()] >= '1' && text[kWord.size()] <= '9';
    if (versioned)
      fail(ErrorCode::kUnsupported, "a ticket of version {}; this program reads version 1",
           text.substr(kWord.size(), colon - kWord.size()));
    fail_no_ticket("it does not start with \"caravan1:\"");
  }
  const std::vector<uint8_t> bytes = bytes_of(text.substr(kPrefix.size()));
  if (bytes.size() < kChecksumBytes) fail_no_ticket("it is cut short");
  const auto body = std::span(bytes).first(bytes.size() - kChecksumBytes);
  if (const auto sum = checksum(body); !std::equal(sum.begin(), sum.end(), body.end()))
    fail_no_ticket("its checksum is wrong: mistyped or cut short");
  Reader reader{body};
  Ticket ticket;
  reader.take(ticket.head);
  reader.take(ticket.secret);
  uint64_t expires = 0;
  for (int shift = 0; const uint8_t byte : reader.take(8)) expires |= uint64_t{byte} << (8 * shift++);
  ticket.expires_unix = static_cast<int64_t>(expires);
  const uint8_t count = reader.take(1)[0];
  if (count == 0 || count > limits::kMaxEndpoints) fail_no_ticket("it names no address, or too many");
  for (uint8_t i = 0; i < count; ++i) {
    const auto size = reader.take(2);
    const auto raw = reader.take(size[0] | size_t{size[1]} << 8);
    const std::string_view endpoint(reinterpret_cast<const char*>(raw.data()), raw.size());
    ticket.endpoints.push_back(to_string(parse_endpoint(endpoint, false)));
  }
  if (!reader.rest.empty()) fail_no_ticket("something follows it");
  return ticket;
}

KeyPair one_time_keys(const Ticket& ticket) {
  Sha256 hash;
  hash.update("caravan ticket 1")
      .update(std::as_bytes(std::span(ticket.head.bytes)))
      .update(std::as_bytes(std::span(ticket.secret.bytes)));
  return key_pair_of_seed(hash.finish().bytes);
}

}  // namespace caravan
