#include "daemon/memory_line.h"

#include <fstream>
#include <sstream>

namespace caravan {

std::optional<Bytes> memory_line(const std::string& file, std::string_view name) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(name)) continue;
    uint64_t kib = 0;
    if (std::istringstream(line.substr(name.size())) >> kib) return Bytes{kib * 1024};
  }
  return std::nullopt;
}

}  // namespace caravan
