#include "proto/framing.h"

#include <algorithm>

#include "base/error.h"
#include "base/limits.h"

namespace caravan {
namespace {

void put(std::byte* out, uint64_t value) {
  for (int i = 0; i < 8; ++i) out[i] = static_cast<std::byte>(value >> (8 * i));
}

uint64_t get(const std::byte* in) {
  uint64_t value = 0;
  for (int i = 0; i < 8; ++i) value |= std::to_integer<uint64_t>(in[i]) << (8 * i);
  return value;
}

// Bytes 0 to 3: version, kind, lane, 0; then two numbers, little-endian.
constexpr size_t kVersionAt = 0, kKindAt = 1, kLaneAt = 2, kZeroAt = 3, kNumberAt = 4, kAmountAt = 12;

}  // namespace

std::vector<std::byte> pack(const Envelope& envelope, std::span<const std::byte> payload) {
  std::vector<std::byte> frame(kEnvelopeBytes);
  frame.reserve(kEnvelopeBytes + payload.size());
  frame[kVersionAt] = static_cast<std::byte>(kFramingVersion);
  frame[kKindAt] = static_cast<std::byte>(envelope.kind);
  frame[kLaneAt] = static_cast<std::byte>(envelope.lane);
  put(&frame[kNumberAt], envelope.number);
  put(&frame[kAmountAt], envelope.amount);
  frame.insert(frame.end(), payload.begin(), payload.end());
  return frame;
}

std::vector<std::byte> pack(const Envelope& envelope, const std::string& text) {
  const size_t bytes = std::min<size_t>(text.size(), limits::kMaxReasonBytes);
  return pack(envelope, std::as_bytes(std::span(text.data(), bytes)));
}

Unpacked unpack(std::span<const std::byte> frame) {
  if (frame.size() < kEnvelopeBytes)
    fail(ErrorCode::kMalformed, "a frame of {} bytes, {} are the least", frame.size(), kEnvelopeBytes);
  if (frame.size() > kEnvelopeBytes + limits::kMaxHeaderBytes)
    fail(ErrorCode::kLimit, "a first frame of {} bytes", frame.size());
  const auto version = std::to_integer<unsigned>(frame[kVersionAt]);
  if (version != kFramingVersion)
    fail(ErrorCode::kUnsupported, "framing of version {}, this program speaks {}", version, kFramingVersion);
  const auto kind = std::to_integer<unsigned>(frame[kKindAt]);
  if (kind < static_cast<unsigned>(FrameKind::kHello) ||
      kind > static_cast<unsigned>(FrameKind::kEnrolRefused))
    fail(ErrorCode::kUnsupported, "a frame of the unknown kind {}", kind);
  const auto lane = std::to_integer<unsigned>(frame[kLaneAt]);
  if (lane > static_cast<unsigned>(Lane::kBulk) || frame[kZeroAt] != std::byte{0})
    fail(ErrorCode::kMalformed, "a frame of lane {}", lane);
  Unpacked out;
  out.envelope.kind = static_cast<FrameKind>(kind);
  out.envelope.lane = static_cast<Lane>(lane);
  out.envelope.number = get(&frame[kNumberAt]);
  out.envelope.amount = get(&frame[kAmountAt]);
  out.payload = frame.subspan(kEnvelopeBytes);
  return out;
}

std::string payload_text(std::span<const std::byte> payload) {
  std::string text;
  for (const std::byte b : payload.first(std::min<size_t>(payload.size(), limits::kMaxReasonBytes))) {
    const char c = static_cast<char>(b);
    text.push_back(static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c);
  }
  return text;
}

}  // namespace caravan
