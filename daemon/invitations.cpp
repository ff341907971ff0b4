#include "daemon/invitations.h"

#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/error.h"
#include "base/log.h"

namespace caravan {

namespace {

namespace fs = std::filesystem;

constexpr Duration kInterval = std::chrono::milliseconds(200);

std::string folder_of(const std::string& state_folder) {
  return (fs::path(state_folder) / "invitations").string();
}

// The file's name is the one-time key in hexadecimal, its content the time of expiry.
std::optional<OpenTicket> read_ticket(const fs::path& path) {
  OpenTicket ticket;
  if (!from_hex(path.filename().string(), ticket.one_time_key.bytes.data(), ticket.one_time_key.size()))
    return std::nullopt;
  std::ifstream in(path);
  if (!(in >> ticket.expires_unix)) return std::nullopt;
  return ticket;
}

}  // namespace

Invitations::Invitations(EventLoop& loop, const std::string& state_folder, Accept accept)
    : loop_(loop), folder_(folder_of(state_folder)), accept_(std::move(accept)) {
  std::error_code error;
  fs::create_directories(folder_, error);
  fs::permissions(folder_, fs::perms::owner_all, error);
  if (error)
    fail(ErrorCode::kIo, "{} cannot be made: {}; name another folder with --state DIR", folder_,
         error.message());
  look();
}

Invitations::~Invitations() {
  if (timer_) loop_.cancel(*timer_);
}

void Invitations::look() {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder_, ignored)) {
    if (entry.path().extension() == ".part") continue;
    if (const auto ticket = read_ticket(entry.path())) {
      try {
        accept_(*ticket);
      } catch (const Error& error) {
        log_error("invitation_failed reason=\"{}\"", error.message());
        continue;
      }
    }
    fs::remove(entry.path(), ignored);
  }
  timer_ = loop_.after(kInterval, [this] { look(); });
}

void hand_over(const std::string& state_folder, const OpenTicket& ticket, Duration patience) {
  const fs::path path = fs::path(folder_of(state_folder)) / to_string(ticket.one_time_key);
  const fs::path part = path.string() + ".part";
  {
    std::ofstream out(part);
    out << ticket.expires_unix << "\n";
    if (!out) fail(ErrorCode::kIo, "{} cannot be written", part.string());
  }
  fs::rename(part, path);
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (fs::exists(path)) {
    if (std::chrono::steady_clock::now() >= deadline) {
      std::error_code ignored;
      fs::remove(path, ignored);
      fail(ErrorCode::kTimeout, "the running head did not take the invitation");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

}  // namespace caravan
