#include "daemon/end_within.h"

#include <cstdlib>
#include <thread>
#include <utility>

namespace caravan {

void end_within(Duration patience, int status, Saving saving) {
  std::thread([patience, status, saving = std::move(saving)] {
    constexpr Duration kLook = std::chrono::milliseconds(10);
    std::this_thread::sleep_for(patience);
    if (*saving) {
      for (Duration waited{}; *saving && waited < kSavingPatience; waited += kLook)
        std::this_thread::sleep_for(kLook);
      std::this_thread::sleep_for(patience);
    }
    std::_Exit(status);
  }).detach();
}

}  // namespace caravan
