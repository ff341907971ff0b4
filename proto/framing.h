#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

// What two links say to each other: the small prefix of every frame, in front of a message's header or alone.
// docs/PROTOCOL.md, "Framing". Pure functions; any thread.
namespace caravan {

enum class FrameKind : uint8_t {
  kHello = 1,         // number: session, amount: the window of the sender in bytes, lane
  kHelloAnswer = 2,   // the same, from the side that listens
  kMessage = 3,       // number: order, amount: bytes of rows; payload: the header
  kFragment = 4,      // number: order of its message, amount: offset; the bytes are the next part
  kCredit = 5,        // amount: bytes that the receiver has taken
  kPing = 6,          // number: chosen by the sender
  kPong = 7,          // number: of the ping
  kBye = 8,           // payload: the reason
  kEnrol = 9,         // payload: see peers/enrol.h
  kEnrolled = 10,     //
  kEnrolRefused = 11  // payload: the reason
};

enum class Lane : uint8_t { kDecode = 0, kBulk = 1 };

struct Envelope {
  FrameKind kind = FrameKind::kPing;
  Lane lane = Lane::kDecode;  // hello and its answer; else kDecode
  uint64_t number = 0;
  uint64_t amount = 0;
};

inline constexpr size_t kEnvelopeBytes = 20;
// Raised when the prefix itself changes; kProtocolVersion counts the messages.
inline constexpr uint8_t kFramingVersion = 1;

// The prefix and the payload in one frame.
std::vector<std::byte> pack(const Envelope& envelope, std::span<const std::byte> payload = {});
std::vector<std::byte> pack(const Envelope& envelope, const std::string& text);

struct Unpacked {
  Envelope envelope;
  std::span<const std::byte> payload;  // inside the frame that was given
};
// Throws kMalformed, kLimit (a payload over limits::kMaxHeaderBytes), kUnsupported (another version).
Unpacked unpack(std::span<const std::byte> frame);

// A payload that is a text for people, cut to limits::kMaxReasonBytes, without control characters.
std::string payload_text(std::span<const std::byte> payload);

}  // namespace caravan
