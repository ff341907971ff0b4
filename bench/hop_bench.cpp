#include "bench/hop_bench.h"

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "bench/median.h"
#include "compute/codec.h"
#include "peers/zmq_link.h"

namespace caravan {
namespace {

double microseconds(Duration duration) {
  return seconds(duration) * 1e6;
}

// One end: the wire thread leaves what came, the benchmark's thread waits for it.
class End {
 public:
  End(const Clock& clock, Random& random) : keys_(make_key_pair(random)) {
    ZmqLinkOptions options;
    options.keys = keys_;
    options.listen = {"tcp://127.0.0.1:0"};
    options.decode.encoded_row_bytes = encoded_row_bytes;
    ZmqLinkCallbacks callbacks;
    callbacks.event = [this](LinkEvent event) {
      // The wire thread writes what the other reads.
      std::lock_guard lock(mutex_);
      if (std::holds_alternative<LinkUp>(event)) is_up_ = true;
      if (std::holds_alternative<LinkDown>(event)) is_up_ = false;
      if (auto* received = std::get_if<Received>(&event)) message_ = std::move(received->message);
      changed_.notify_all();
    };
    link_ = std::make_unique<ZmqLink>(std::move(options), clock, random, std::move(callbacks));
  }
  const PeerKey& key() const { return keys_.public_key; }
  ZmqLink& link() { return *link_; }
  void wait_until_up() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::seconds(10), [&] { return is_up_; }))
      fail(ErrorCode::kUnavailable, "hop bench: the two ends do not find each other");
  }
  Message take() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::seconds(10), [&] { return message_.has_value(); }))
      fail(ErrorCode::kUnavailable, "hop bench: a step did not arrive");
    return *std::exchange(message_, std::nullopt);
  }

 private:
  const KeyPair keys_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_up_ = false;
  std::optional<Message> message_;
  std::unique_ptr<ZmqLink> link_;
};

void send(End& from, const End& to, const Step& step) {
  if (!from.link().send(to.key(), step)) fail(ErrorCode::kUnavailable, "hop bench: the link is down");
}

HopResult measure(End& near, End& far, CodecId codec, uint32_t rows, const HopBenchOptions& options,
                  const Clock& clock, Random& random) {
  HopResult result{codec, rows, options.width, 0, 0, 0, 0};
  std::vector<float> values(size_t{rows} * options.width);
  for (float& value : values) value = static_cast<float>(random.unit() * 2 - 1);
  std::vector<std::byte> bytes(rows * encoded_row_bytes(codec, options.width));
  result.row_bytes = bytes.size();
  std::vector<double> codec_us, wire_us;
  for (uint32_t i = 0; i < options.rounds; ++i) {
    const Time before = clock.now();
    encode_rows(codec, values.data(), rows, options.width, bytes.data());
    decode_rows(codec, bytes, rows, options.width, values.data());
    codec_us.push_back(microseconds(clock.now() - before));
  }
  Step step;
  step.ranges = {{{1}, 1, 0, rows, KernelClass::kMany, AnswerKind::kNothing, 0}};
  step.rows = {codec, options.width, rows, std::make_shared<const std::vector<std::byte>>(std::move(bytes))};
  for (uint32_t i = 0; i < options.rounds; ++i) {
    const Time before = clock.now();
    send(near, far, step);
    send(far, near, std::get<Step>(far.take()));
    const Message back = near.take();
    wire_us.push_back(microseconds(clock.now() - before) / 2);
    CHECK(std::get<Step>(back).rows.byte_count() == result.row_bytes);
  }
  result.wire_us = median(std::move(wire_us));
  result.codec_us = median(std::move(codec_us));
  result.megabytes_s = static_cast<double>(result.row_bytes) / result.wire_us;
  return result;
}

}  // namespace

std::vector<HopResult> run_hop_bench(const HopBenchOptions& options, const Clock& clock, Random& random) {
  End near(clock, random), far(clock, random);
  far.link().allow(near.key());
  near.link().connect(far.key(), far.link().endpoints());
  near.wait_until_up();
  far.wait_until_up();
  std::vector<HopResult> results;
  for (const uint32_t rows : options.rows)
    for (const CodecId codec : {CodecId::kF32, CodecId::kBf16, CodecId::kInt8})
      results.push_back(measure(near, far, codec, rows, options, clock, random));
  return results;
}

}  // namespace caravan
