#include "daemon/link_options.h"

#include <algorithm>
#include <utility>

#include "compute/codec.h"

namespace caravan {

ZmqLinkOptions link_options(const KeyPair& keys, std::string name, std::string listen, const Config& config) {
  ZmqLinkOptions options;
  options.keys = keys;
  options.name = std::move(name);
  options.listen = {std::move(listen)};
  options.decode.encoded_row_bytes = [](CodecId codec, uint32_t width) {
    return encoded_row_bytes(codec, width);
  };
  options.timeout = from_seconds(config.peer_timeout_s);
  // Several signs of life within the timeout, so that one late one loses nobody.
  options.heartbeat = std::min<Duration>(options.heartbeat, options.timeout / 4);
  return options;
}

}  // namespace caravan
