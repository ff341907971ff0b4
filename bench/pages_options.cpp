#include "bench/pages_options.h"

#include <fcntl.h>
#include <unistd.h>

#include "daemon/defaults.h"

namespace caravan {

void PagesBenchOptions::step(const std::string& what) const {
  check();
  tell(what);
  const int folder = ::open(state_folder(config).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return;  // whoever works in it says why
  ::syncfs(folder);
  ::close(folder);
}

}  // namespace caravan
