#include "peers/enrol.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/limits.h"

namespace caravan {
namespace {

constexpr size_t kFixedBytes = PeerKey::size() + KeyProof::size();

bool is_control(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}

}  // namespace

std::vector<std::byte> to_bytes(const EnrolRequest& request) {
  std::vector<std::byte> out(kFixedBytes + request.name.size());
  std::memcpy(out.data(), request.key.bytes.data(), PeerKey::size());
  std::memcpy(out.data() + PeerKey::size(), request.proof.bytes.data(), KeyProof::size());
  std::transform(request.name.begin(), request.name.end(), out.begin() + kFixedBytes,
                 [](char c) { return static_cast<std::byte>(c); });
  return out;
}

EnrolRequest parse_enrol_request(std::span<const std::byte> bytes) {
  if (bytes.size() < kFixedBytes) fail(ErrorCode::kMalformed, "an enrolment of {} bytes", bytes.size());
  if (bytes.size() > kFixedBytes + limits::kMaxNameBytes)
    fail(ErrorCode::kLimit, "a name of {} bytes in an enrolment", bytes.size() - kFixedBytes);
  EnrolRequest out;
  std::memcpy(out.key.bytes.data(), bytes.data(), PeerKey::size());
  std::memcpy(out.proof.bytes.data(), bytes.data() + PeerKey::size(), KeyProof::size());
  for (const std::byte b : bytes.subspan(kFixedBytes)) out.name.push_back(static_cast<char>(b));
  if (std::any_of(out.name.begin(), out.name.end(), is_control))
    fail(ErrorCode::kMalformed, "a control character in the name of an enrolment");
  return out;
}

EnrolRequest make_enrol_request(const KeyPair& own, const PeerKey& head, const PeerKey& one_time_key,
                                const std::string& name) {
  EnrolRequest out{own.public_key, prove_key(own, head, one_time_key.bytes),
                   name.substr(0, limits::kMaxNameBytes)};
  std::replace_if(out.name.begin(), out.name.end(), is_control, ' ');
  return out;
}

bool is_proven(const EnrolRequest& request, const KeyPair& head, const PeerKey& one_time_key) {
  return is_proof(request.proof, request.key, head, one_time_key.bytes);
}

}  // namespace caravan
