#include "daemon/interruption.h"

#include <ctime>

namespace caravan {

Interruption::Interruption() {
  sigemptyset(&signals_);
  sigaddset(&signals_, SIGINT);
  sigaddset(&signals_, SIGTERM);
  sigaddset(&signals_, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &signals_, &before_);
}

Interruption::~Interruption() {
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

bool Interruption::came() {
  const timespec none{};
  if (!came_) came_ = sigtimedwait(&signals_, nullptr, &none) > 0;
  return came_;
}

}  // namespace caravan
