#include "daemon/version.h"

namespace caravan {

std::string version_text() {
  return "caravan " CARAVAN_VERSION;
}

}  // namespace caravan
