#include "base/secret_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <optional>
#include <system_error>

#include "base/error.h"
#include "base/ids.h"

namespace caravan {
namespace {

[[noreturn]] void fail_folder(const std::string& path, int error) {
  fail(ErrorCode::kIo, "{}: {}; choose a folder that can be written with --state DIR", path,
       std::generic_category().message(error));
}

struct File {
  int descriptor;
  explicit File(int d) : descriptor(d) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    if (descriptor >= 0) close(descriptor);
  }
};

std::optional<Secret> load(const std::string& path, const std::string& first_line) {
  const File file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (file.descriptor < 0) {
    if (errno == ENOENT) return std::nullopt;
    fail_folder(path, errno);
  }
  struct stat status {};
  if (fstat(file.descriptor, &status) != 0) fail_folder(path, errno);
  if ((status.st_mode & 077) != 0)
    fail(ErrorCode::kRefused, "{}: others may read this key; chmod 600 it, or make a new one", path);
  constexpr size_t kDigits = 2 * std::tuple_size_v<Secret>;
  const size_t expected = first_line.size() + kDigits + 1;
  std::string text(expected + 1, '\0');
  const ssize_t bytes = read(file.descriptor, text.data(), text.size());
  if (bytes < 0) fail_folder(path, errno);
  text.resize(static_cast<size_t>(bytes));
  Secret secret;
  if (text.size() != expected || text.substr(0, first_line.size()) != first_line || text.back() != '\n' ||
      !from_hex(text.substr(first_line.size(), kDigits), secret.data(), secret.size()))
    fail(ErrorCode::kMalformed, "{}: not a key of this program", path);
  return secret;
}

// Whole or not at all, and never over a file that is there: false when another process was first.
bool store(const std::string& path, const std::string& text, Random& random) {
  const std::string temporary = path + "." + std::to_string(random.next());
  {
    const File file(open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (file.descriptor < 0) fail_folder(temporary, errno);
    const ssize_t written = write(file.descriptor, text.data(), text.size());
    if (written != static_cast<ssize_t>(text.size()) || fsync(file.descriptor) != 0) {
      const int error = written < 0 || errno != 0 ? errno : ENOSPC;
      unlink(temporary.c_str());
      fail_folder(temporary, error);
    }
  }
  const bool linked = link(temporary.c_str(), path.c_str()) == 0;
  const int error = errno;
  unlink(temporary.c_str());
  if (!linked && error != EEXIST) fail_folder(path, error);
  const File folder(open(std::filesystem::path(path).parent_path().c_str(), O_RDONLY | O_CLOEXEC));
  if (folder.descriptor >= 0) fsync(folder.descriptor);
  return linked;
}

}  // namespace

Secret load_or_create_secret(const std::string& folder, const std::string& name, std::string_view first_line,
                             Random& random, const std::function<Secret()>& make) {
  const std::string path = folder + "/" + name, line = std::string(first_line) + "\n";
  if (const auto secret = load(path, line)) return *secret;
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) fail_folder(folder, error.value());
  std::filesystem::permissions(folder, std::filesystem::perms::owner_all, error);
  if (error) fail_folder(folder, error.value());
  const Secret made = make();
  if (store(path, line + to_hex(made.data(), made.size()) + "\n", random)) return made;
  const auto secret = load(path, line);
  if (!secret) fail(ErrorCode::kIo, "{}: was there and is gone", path);
  return *secret;
}

}  // namespace caravan
