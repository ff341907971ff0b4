#include "daemon/archive_key.h"

#include "base/error.h"
#include "base/log.h"
#include "base/secret_file.h"

namespace caravan {

std::optional<ArchiveKey> load_archive_key(const std::string& state_folder, Random& random) {
  try {
    return ArchiveKey{
        load_or_create_secret(state_folder + "/keys", "archive.key", "caravan archive key 1", random, [&] {
          Secret made;
          random.fill(made);
          return made;
        })};
  } catch (const Error& error) {
    log_warning("archive_off reason=\"{}\"", error.message());
    return std::nullopt;
  }
}

}  // namespace caravan
