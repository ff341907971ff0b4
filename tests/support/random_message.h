#pragma once

#include <string>
#include <vector>

#include "base/limits.h"
#include "base/random.h"
#include "compute/codec.h"
#include "proto/messages.h"

namespace caravan::test {

// Messages of every kind, with every field set from a seed, within the limits.
class MessageMaker {
 public:
  explicit MessageMaker(uint64_t seed) : random_(seed) {}

  Message make() { return make(random_.below(std::variant_size_v<Message>)); }

  Message make(size_t kind) {
    switch (kind) {
      case 0:
        return Hello{
            u32(),          text(), text(), text(), blob<Hash256>(), u32() % (limits::kMaxLayers + 1),
            u64(),          u64(),  u64(),  u32(),  endpoints(),     flag(),
            blob<Hash256>()};
      case 1:
        return Welcome{u32(), blob<RingId>(), text(), u32(), u32()};
      case 2:
        return Refuse{text()};
      case 3:
        return Heartbeat{u64(), u64(), u64(), u64(), u32(), u32(), {u64()}, {u64()}, u64(), u64()};
      case 4:
        return Goodbye{text()};
      case 5:
        return assign();
      case 6:
        return Contract{blob<RingId>(), {u64()}, u32(), flag(), blob<Hash256>(), flag()};
      case 7:
        return Ready{blob<RingId>(), {u64()}, u64(), forecast(), {u64(), u64(), u64()}};
      case 8:
        return NotReady{blob<RingId>(), {u64()}, u32(), text()};
      case 9:
        return Release{blob<RingId>(), {u64()}, text()};
      case 10:
        return step();
      case 11:
        return Answer{blob<RingId>(), {u64()}, {u64()}, flag(), rows(u32() % 20), counters()};
      case 12:
        return StepFailed{blob<RingId>(), {u64()}, {u64()}, u32(), text()};
      case 13:
        return ManifestRequest{};
      case 14:
        return ManifestInfo{blob<Hash256>(), blob<Hash256>(), random_.below(limits::kMaxModelRecordBytes),
                            u64(),           u64(),           text()};
      case 15:
        return ShardRequest{blob<Hash256>(), u32(), 1 + u32() % uint32_t{limits::kMaxShardRangeBytes}};
      case 16:
        return ShardBytes{blob<Hash256>(), u32(), bytes(1 + random_.below(900))};
      case 17:
        return ShardRefused{blob<Hash256>(), u64(), text()};
      case 18:
        return Fetch{blob<RingId>(), u64(), span()};
      case 19:
        return Fetched{blob<RingId>(), u64(), text()};
      case 20:
        return ArchiveLimit{blob<RingId>(), {u64()}, {u64(), u64(), u64()}};
      default:
        return probe();
    }
  }

 private:
  uint64_t u64() { return random_.next(); }
  uint32_t u32() { return static_cast<uint32_t>(random_.next()); }
  bool flag() { return random_.below(2) == 1; }
  std::string text() {
    std::string out(random_.below(random_.below(8) == 0 ? limits::kMaxNameBytes + 1 : 12), ' ');
    // Printable, and bytes of UTF-8 beyond.
    for (char& c : out)
      c = static_cast<char>(random_.below(2) ? 0x20 + random_.below(95) : 0x80 + random_.below(128));
    return out;
  }
  template <class B>
  B blob() {
    B out;
    random_.fill(out.bytes);
    return out;
  }
  std::vector<std::string> endpoints() {
    std::vector<std::string> out(random_.below(limits::kMaxEndpoints + 1));
    for (auto& one : out) one = text();
    return out;
  }
  std::vector<StageCounters> counters() {
    std::vector<StageCounters> out(random_.below(5));
    for (auto& one : out) one = {u32(), u32(), u64(), u64(), u64(), u64()};
    return out;
  }
  StageForecast forecast() {
    StageForecast out;
    if (flag()) return out;
    out.token_ns.resize(limits::kForecastTokens);
    out.prompt_ns.resize(limits::kForecastPrompts);
    for (uint64_t& one : out.token_ns) one = u64();
    for (uint64_t& one : out.prompt_ns) one = u64();
    return out;
  }
  CodecId codec() { return static_cast<CodecId>(random_.below(kCodecCount)); }
  SharedBytes bytes(size_t count) {
    std::vector<uint8_t> drawn(count);
    random_.fill(drawn);
    const auto* data = reinterpret_cast<const std::byte*>(drawn.data());
    return std::make_shared<const std::vector<std::byte>>(data, data + count);
  }
  UnitSpan span() {
    const uint32_t last = u32() % (limits::kMaxLayers + 3);
    return {u32() % (last + 1), last};
  }
  Rows rows(uint32_t count) {
    if (count == 0) return {codec(), 0, 0, nullptr};
    Rows out{codec(), 1 + u32() % 300, count, nullptr};
    out.bytes = bytes(count * encoded_row_bytes(out.codec, out.width));
    return out;
  }
  Message assign() {
    Assign out{blob<RingId>(), {u64()}, blob<Hash256>(), 0, {}, codec(), static_cast<uint8_t>(u32()), 0, 0, 0,
               blob<Hash256>()};
    out.route.resize(1 + random_.below(6));
    for (auto& stage : out.route)
      stage = {blob<PeerKey>(), text(), text(), endpoints(), span(), blob<Hash256>()};
    out.stage = static_cast<uint32_t>(random_.below(out.route.size()));
    out.context = u32() % (limits::kMaxContext + 1);
    out.max_sequences = u32() % (limits::kMaxSequences + 1);
    out.max_rows = u32() % (limits::kMaxRowsPerStep + 1);
    return out;
  }
  Message step() {
    Step out{blob<RingId>(), {u64()}, {u64()}, flag(), {}, {}, {}, counters()};
    out.operations.resize(random_.below(6));
    for (auto& one : out.operations)
      one = {static_cast<OperationKind>(random_.below(6)),
             {u64()},
             u64(),
             {u64()},
             u32() % (limits::kMaxContext + 1)};
    out.ranges.resize(random_.below(6));
    uint32_t count = 0;
    for (auto& one : out.ranges) {
      one = {{u64()},
             u64(),
             u32() % 100'000,
             1 + u32() % 9,
             static_cast<KernelClass>(random_.below(2)),
             static_cast<AnswerKind>(random_.below(4)),
             0};
      if (one.answer != AnswerKind::kNothing) one.answer_count = 1 + u32() % one.count;
      count += one.count;
    }
    out.rows = rows(count);
    out.lost.resize(random_.below(4));
    for (SequenceId& one : out.lost) one = {u64()};
    out.lost_reason = text();
    out.tags = tags();
    out.load_tags = tags();
    return out;
  }
  std::vector<BlockTag> tags() {
    std::vector<BlockTag> out(random_.below(random_.below(8) == 0 ? limits::kMaxTagsPerStep + 1 : 5));
    for (BlockTag& one : out) one = blob<BlockTag>();
    return out;
  }
  Message probe() {
    ArchiveProbe out{blob<RingId>(), {u64()}, u64(), flag(), tags(), 0, u64()};
    out.blocks = static_cast<uint32_t>(out.tags.size());
    if (out.to_head) out.tags.clear();
    return out;
  }

  SeededRandom random_;
};

}  // namespace caravan::test
