#include "daemon/shard_service.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "shards/store_import.h"
#include "shards/store_source.h"

namespace caravan {

namespace {

constexpr Duration kTellInterval = std::chrono::milliseconds(250);
constexpr Duration kLogInterval = std::chrono::seconds(5);
constexpr size_t kKeptParts = 4 * limits::kMaxShardRangeBytes / limits::kShardPartBytes;

}  // namespace

ShardService::ShardService(EventLoop& loop, const Clock& clock, std::shared_ptr<ShardStore> store,
                           const Manifest& manifest, Reopen reopen, Link& link)
    : loop_(loop),
      clock_(clock),
      store_(std::move(store)),
      manifest_(manifest),
      reopen_(std::move(reopen)),
      link_(link),
      buffers_(kKeptParts) {}

ShardService::~ShardService() {
  life_->is_over = true;
}

bool ShardService::on(const LinkEvent& event) {
  if (const auto* down = std::get_if<LinkDown>(&event)) {
    server_.lost(down->peer);
    settle();
    return false;
  }
  const auto* received = std::get_if<Received>(&event);
  if (!received || !is_for_shard_server(received->message)) return false;
  server_.on(received->from, received->message);
  settle();
  return true;
}

void ShardService::settle() {
  if (memory_) {
    const Bytes wanted{server_.takers() > 0 ? limits::kMostShardBytesHeld : 0};
    if (std::exchange(wanted_, wanted) != wanted) memory_->want(wanted);
    server_.set_room(memory_->has().count);
  }
  for (ShardServerAction& action : server_.take_actions()) {
    if (auto* send = std::get_if<SendMessage>(&action)) {
      // What a link does not take is asked for again.
      if (!link_.send(send->to, std::move(send->message)))
        log_debug("shard_dropped to={}", short_string(send->to));
    } else if (const auto* read = std::get_if<ReadShard>(&action)) {
      thread_.post([this, what = *read] {
        loop_.post([this, event = read_now(what)]() mutable {
          server_.on(std::move(event));
          settle();
        });
      });
    } else {
      thread_.post([this] { hash_now(); });
    }
  }
}

void ShardService::hash_now() {
  const uint64_t total = content_bytes(manifest_);
  const Time start = clock_.now();
  uint64_t done = 0;
  Time told = start, logged = start;
  ImportOptions options;
  options.cancelled = [this] { return life_->is_over.load(); };
  options.advance = [&](uint64_t bytes) {
    done += bytes;
    const Time now = clock_.now();
    if (now - told < kTellInterval) return;
    told = now;
    if (now - logged >= kLogInterval) {
      logged = now;
      log_info("hashing model={} done={} of={}", manifest_.name, to_string(Bytes{done}),
               to_string(Bytes{total}));
    }
    loop_.post([this, done, total] { server_.hashing(done, total); });
  };
  try {
    const ModelRecord record = without_paths(hash_model(*store_, reopen_(), options));
    if (record.fingerprint != manifest_.fingerprint())
      fail(ErrorCode::kUnavailable, "{}: it is another model by now than the one being served",
           manifest_.path);
    index_.record_bytes = encode_model_record(record);
    index_.record = sha256(std::as_bytes(std::span(index_.record_bytes)));
    ShardContents contents{record.fingerprint, index_.record, {{index_.record, index_.record_bytes.size()}}};
    for (size_t i = 0; i < record.hashes.size(); ++i) {
      index_.groups.emplace(record.hashes[i], i);
      contents.bytes.emplace(record.hashes[i], manifest_.groups[i].bytes().count);
    }
    log_info("hashed model={} bytes={} seconds={:.1f}", manifest_.name, total, seconds(clock_.now() - start));
    loop_.post([this, contents = std::move(contents)]() mutable { server_.hashed(std::move(contents)); });
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kCancelled) log_error("hashing_failed reason=\"{}\"", error.message());
    loop_.post([this, reason = error.message()] { server_.unavailable(reason); });
  }
}

ShardRead ShardService::read_now(const ReadShard& what) {
  ShardRead event{what, {}, ""};
  try {
    std::vector<std::shared_ptr<SpareBuffers::Buffer>> parts;
    for (uint64_t offset = what.offset; offset < what.offset + what.length;) {
      const auto count = std::min<uint64_t>(limits::kShardPartBytes, what.offset + what.length - offset);
      read_content_of(what.group, offset, *parts.emplace_back(buffers_.take(count)));
      offset += count;
    }
    const std::shared_ptr<const void> range = until_gone(what);
    for (auto& bytes : parts) {
      const auto part = std::make_shared<const Part>(Part{range, std::move(bytes)});
      event.parts.emplace_back(part, *part->bytes);
    }
  } catch (const Error& error) {
    event.error = error.message();
  }
  return event;
}

std::shared_ptr<const void> ShardService::until_gone(const ReadShard& what) {
  return {nullptr, [this, &loop = loop_, life = life_, to = what.to, count = what.length](const void*) {
            // On any thread, and perhaps when there is no service any more.
            if (life->is_over) return;
            loop.post([this, life, to, count] {
              if (life->is_over) return;
              server_.gone(to, count);
              settle();
            });
          }};
}

void ShardService::read_content_of(const Hash256& group, uint64_t offset, std::span<std::byte> out) const {
  if (group != index_.record)
    return read_content(*manifest_.source, manifest_.groups[index_.groups.at(group)], offset, out);
  const auto bytes = std::as_bytes(std::span(index_.record_bytes)).subspan(offset, out.size());
  std::copy(bytes.begin(), bytes.end(), out.begin());
}

}  // namespace caravan
