#include "daemon/api_status.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/seconds_text.h"
#include "shards/json_metadata.h"

using json = nlohmann::ordered_json;

namespace caravan {

namespace {

// One list of the fields, for writing and reading alike.
template <class Status, class Field>
void each_stage_field(Status& stage, Field field) {
  field("peer", stage.peer);
  field("key", stage.key);
  field("address", stage.address);
  field("first_unit", stage.first_unit);
  field("last_unit", stage.last_unit);
  field("state", stage.state);
  field("measured", stage.measured);
  field("round_trip_ms", stage.round_trip_ms);
  field("layer_ms", stage.layer_ms);
  field("kv_blocks", stage.kv_blocks);
  field("kv_blocks_free", stage.kv_blocks_free);
  field("bytes_in", stage.bytes_in);
  field("bytes_out", stage.bytes_out);
}

template <class Status, class Field>
void each_peer_field(Status& peer, Field field) {
  field("name", peer.name);
  field("key", peer.key);
  field("address", peer.address);
  field("state", peer.state);
  field("offered_bytes", peer.offered_bytes);
  field("layer_ms", peer.layer_ms);
  field("round_trip_ms", peer.round_trip_ms);
}

template <class Status, class Field>
void each_field(Status& status, Field field) {
  field("ready", status.ready);
  field("not_ready_reason", status.not_ready_reason);
  field("model", status.model);
  field("family", status.family);
  field("fingerprint", status.fingerprint);
  field("codec", status.codec);
  field("ring", status.ring);
  field("epoch", status.epoch);
  field("exact", status.exact);
  field("context", status.context);
  field("requests_running", status.requests_running);
  field("requests_waiting", status.requests_waiting);
  field("prompt_tokens", status.prompt_tokens);
  field("generated_tokens", status.generated_tokens);
  field("reused_tokens", status.reused_tokens);
  field("prefill_tokens_per_second", status.prefill_tokens_per_second);
  field("decode_tokens_per_second", status.decode_tokens_per_second);
  field("token_ms", status.token_ms);
  field("expected_token_ms", status.expected_token_ms);
  field("prompt_token_ms", status.prompt_token_ms);
  field("expected_prompt_token_ms", status.expected_prompt_token_ms);
  field("links_ms", status.links_ms);
  field("no_forecast_of", status.no_forecast_of);
  field("wire_bytes", status.wire_bytes);
  field("kv_bytes_written", status.kv_bytes_written);
  field("kv_bytes_read", status.kv_bytes_read);
  field("kv_wait_seconds", status.kv_wait_seconds);
  field("memory_limit_bytes", status.memory.limit_bytes);
  field("memory_weights_bytes", status.memory.weights_bytes);
  field("memory_state_bytes", status.memory.state_bytes);
  field("memory_scratch_bytes", status.memory.scratch_bytes);
  field("memory_wire_bytes", status.memory.wire_bytes);
  field("weights_bytes_read", status.memory.weights_read_bytes);
  field("weights_wait_seconds", status.memory.weights_wait_seconds);
  field("kv_archive_on", status.kv_archive.on);
  field("kv_archive_off_for_now", status.kv_archive.off_for_now);
  field("kv_archive_limit_bytes", status.kv_archive.limit_bytes);
  field("kv_archive_bytes", status.kv_archive.bytes);
  field("kv_archive_blocks", status.kv_archive.blocks);
  field("kv_archive_bytes_written", status.kv_archive.bytes_written);
  field("kv_archive_bytes_read", status.kv_archive.bytes_read);
  field("kv_archive_blocks_evicted", status.kv_archive.blocks_evicted);
  field("kv_archive_blocks_refused", status.kv_archive.blocks_refused);
  field("kv_archive_blocks_quarantined", status.kv_archive.blocks_quarantined);
  field("kv_archive_failures", status.kv_archive.failures);
  field("archive", status.archive);
  field("archive_tokens", status.archive_tokens);
  field("archive_least", status.archive_least);
  field("archive_hits", status.archive_hits);
  field("archive_misses", status.archive_misses);
  field("archive_timeouts", status.archive_timeouts);
  field("archive_loads", status.archive_loads);
  field("archive_loaded_tokens", status.archive_loaded_tokens);
  field("archive_dearer", status.archive_dearer);
  field("archive_failed", status.archive_failed);
  field("started_unix", status.started_unix);
}

struct Writer {
  json& object;
  template <class T>
  void operator()(const char* key, const T& value) const {
    object[key] = value;
  }
};
struct Reader {
  const json& object;
  template <class T>
  void operator()(const char* key, T& value) const {
    if (const auto found = object.find(key); found != object.end() && !found->is_null())
      value = found->template get<T>();
  }
};

template <class Status, class Read>
void read_list(const json& object, const char* key, std::vector<Status>& list, Read read) {
  const auto found = object.find(key);
  if (found == object.end()) return;
  if (!found->is_array() || found->size() > limits::kMaxPeers + 2)
    fail(ErrorCode::kMalformed, "status: '{}' is no array of at most {}", key, limits::kMaxPeers + 2);
  for (const json& one : *found) {
    if (!one.is_object()) fail(ErrorCode::kMalformed, "status: one of '{}' is no object", key);
    list.push_back(read(one));
  }
}

std::string age(int64_t total_seconds) {
  const int64_t minutes = std::max<int64_t>(total_seconds, 0) / 60;
  if (minutes < 1) return fmt::format("{} s", std::max<int64_t>(total_seconds, 0));
  if (minutes < 120) return fmt::format("{} min", minutes);
  return fmt::format("{} h", minutes / 60);
}

std::string beside(double measured_ms, double expected_ms) {
  const auto time = [](double ms) { return ms > 0 ? seconds_text(ms * 1e-3) : std::string("-"); };
  return fmt::format("{} measured, {} expected", time(measured_ms), time(expected_ms));
}

std::string alone_line(const ServiceStatus& status) {
  if (status.token_ms <= 0 && status.prompt_token_ms <= 0) return "";
  std::string text = fmt::format("one request alone: a token {}; a prompt's token {}\n",
                                 beside(status.token_ms, status.expected_token_ms),
                                 beside(status.prompt_token_ms, status.expected_prompt_token_ms));
  if (!status.no_forecast_of.empty())
    text += fmt::format(
        "  nothing is expected, for want of a forecast by {}: `caravan calibrate` measures there\n",
        status.no_forecast_of);
  else if (status.links_ms > 0)
    text +=
        fmt::format("  of the token {} on links, as measured; a prompt's links are not in what is expected\n",
                    seconds_text(status.links_ms * 1e-3));
  return text;
}

}  // namespace

std::string status_json(const ServiceStatus& status) {
  json object = json::object();
  each_field(status, Writer{object});
  json& stages = object["stages"] = json::array();
  for (const StageStatus& stage : status.stages) {
    json one = json::object();
    each_stage_field(stage, Writer{one});
    stages.push_back(std::move(one));
  }
  json& peers = object["peers"] = json::array();
  for (const PeerStatus& peer : status.peers) {
    json one = json::object();
    each_peer_field(peer, Writer{one});
    peers.push_back(std::move(one));
  }
  return object.dump(-1, ' ', false, json::error_handler_t::replace);
}

ServiceStatus parse_status_json(std::string_view text) {
  try {
    const json object = json::parse(text.begin(), text.end());
    if (!object.is_object()) fail(ErrorCode::kMalformed, "status: not a JSON object");
    ServiceStatus status;
    each_field(status, Reader{object});
    read_list(object, "stages", status.stages, [](const json& one) {
      StageStatus stage;
      each_stage_field(stage, Reader{one});
      return stage;
    });
    read_list(object, "peers", status.peers, [](const json& one) {
      PeerStatus peer;
      each_peer_field(peer, Reader{one});
      return peer;
    });
    return status;
  } catch (const json::exception& error) {
    fail(ErrorCode::kMalformed, "status: {}", json_reason(error.what()));
  }
}

std::string status_table(const ServiceStatus& status, int64_t now_unix) {
  std::string text = fmt::format("{}  {}  {}\n", status.model, status.family,
                                 status.ready ? "ready" : "not ready: " + status.not_ready_reason);
  text += fmt::format("ring {}  epoch {}  codec {} ({})  context {}  up {}\n", status.ring.substr(0, 8),
                      status.epoch, status.codec, status.exact ? "exact" : "not exact", status.context,
                      age(now_unix - status.started_unix));
  text += fmt::format("requests: {} running, {} waiting   tokens: {} read, {} generated   wire: {}\n",
                      status.requests_running, status.requests_waiting, status.prompt_tokens,
                      status.generated_tokens, to_string(Bytes{status.wire_bytes}));
  if (status.archive)
    text += fmt::format("archive: room for {} tokens; {} of prompts in {} loads; {} hits, {} misses\n",
                        status.archive_tokens, status.archive_loaded_tokens, status.archive_loads,
                        status.archive_hits, status.archive_misses);
  else if (!status.archive_least.empty())
    text += fmt::format("archive: nothing is kept, as that of {} has room for no block of its layers\n",
                        status.archive_least);
  text += fmt::format("speed, last minute: prefill {:.1f} tokens/s, decode {:.1f} tokens/s\n",
                      status.prefill_tokens_per_second, status.decode_tokens_per_second);
  if (const MemoryStatus& memory = status.memory; memory.limit_bytes > 0)
    text += fmt::format(
        "memory here: {} for weights, {} for KV, {} for scratch and wire, of {}{}\n",
        to_string(Bytes{memory.weights_bytes}), to_string(Bytes{memory.state_bytes}),
        to_string(Bytes{memory.scratch_bytes + memory.wire_bytes}), to_string(Bytes{memory.limit_bytes}),
        memory.weights_read_bytes == 0
            ? ""
            : fmt::format("   {} of weights streamed", to_string(Bytes{memory.weights_read_bytes})));
  if (const ArchiveStatus& archive = status.kv_archive; archive.on)
    text += fmt::format(
        "KV archive here: {} of {} in {} blocks{}   {} written, {} read, {} blocks evicted, {} bad\n",
        to_string(Bytes{archive.bytes}), to_string(Bytes{archive.limit_bytes}), archive.blocks,
        archive.off_for_now ? ", off after a failure of its disk" : "",
        to_string(Bytes{archive.bytes_written}), to_string(Bytes{archive.bytes_read}), archive.blocks_evicted,
        archive.blocks_quarantined);
  text += alone_line(status) + "\n";
  text += fmt::format("{:<16} {:<9} {:<22} {:<9} {:>9} {:>9} {:>13} {:>10} {:>10}  {}\n", "peer", "key",
                      "address", "units", "trip ms", "layer ms", "kv free", "in", "out", "state");
  for (const StageStatus& stage : status.stages) {
    const auto time = [&](double ms) {
      return stage.measured ? fmt::format("{:.2f}", ms) : std::string("-");
    };
    text += fmt::format("{:<16} {:<9} {:<22} {:<9} {:>9} {:>9} {:>13} {:>10} {:>10}  {}\n", stage.peer,
                        stage.key.empty() ? "-" : stage.key, stage.address.empty() ? "-" : stage.address,
                        fmt::format("{}-{}", stage.first_unit, std::max(stage.last_unit, 1u) - 1),
                        time(stage.round_trip_ms), time(stage.layer_ms),
                        fmt::format("{}/{}", stage.kv_blocks_free, stage.kv_blocks),
                        to_string(Bytes{stage.bytes_in}), to_string(Bytes{stage.bytes_out}), stage.state);
  }
  for (const PeerStatus& peer : status.peers)
    if (peer.state != kInTheRing)
      text += fmt::format("{:<16} {:<9} {:<22} {}\n", peer.name, peer.key.empty() ? "-" : peer.key,
                          peer.address.empty() ? "-" : peer.address, peer.state);
  return text;
}

}  // namespace caravan
