#pragma once

#include <string>

#include "base/config.h"
#include "peers/zmq_link.h"

namespace caravan {

// What every link of this program has in common. `listen`: a ZeroMQ endpoint. A silent neighbour is lost
// after the configured peer timeout.
ZmqLinkOptions link_options(const KeyPair& keys, std::string name, std::string listen, const Config& config);

}  // namespace caravan
