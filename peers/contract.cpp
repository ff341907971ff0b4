#include "peers/contract.h"

#include "base/hash.h"

namespace caravan {
namespace {

void add_text(Sha256& hash, const std::string& text) {
  hash.update(uint64_t{text.size()});
  hash.update(text);
}

}  // namespace

Hash256 contract_hash(const Assign& assign, const OwnFacts& own) {
  Sha256 hash;
  hash.update(uint64_t{kProtocolVersion});
  hash.update(std::as_bytes(std::span(assign.ring.bytes)));
  hash.update(assign.epoch.value);
  hash.update(std::as_bytes(std::span(own.model.bytes)));
  hash.update(uint64_t{static_cast<uint8_t>(assign.codec)});
  hash.update(uint64_t{assign.kv_type});
  hash.update(uint64_t{assign.context});
  hash.update(uint64_t{assign.max_sequences});
  hash.update(uint64_t{assign.max_rows});
  hash.update(uint64_t{assign.route.size()});
  for (const RouteStage& stage : assign.route) {
    hash.update(std::as_bytes(std::span(stage.peer.bytes)));
    hash.update(uint64_t{stage.span.first});
    hash.update(uint64_t{stage.span.last});
    add_text(hash, stage.peer == own.key ? own.numerics_class : stage.numerics_class);
  }
  return hash.finish();
}

}  // namespace caravan
