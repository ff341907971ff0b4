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
        return Hello{u32(), text(), text(), text(), blob<Hash256>(), u32() % (limits::kMaxLayers + 1),
                     u64(), u64(),  u64(),  u32(),  endpoints()};
      case 1:
        return Welcome{u32(), blob<RingId>(), text(), u32(), u32()};
      case 2:
        return Refuse{text()};
      case 3:
        return Heartbeat{u64(), u64(), u64(), u64(), u32(), u32(), {u64()}, {u64()}};
      case 4:
        return Goodbye{text()};
      case 5:
        return assign();
      case 6:
        return Contract{blob<RingId>(), {u64()}, u32(), flag(), blob<Hash256>(), flag()};
      case 7:
        return Ready{blob<RingId>(), {u64()}, u64()};
      case 8:
        return NotReady{blob<RingId>(), {u64()}, u32(), text()};
      case 9:
        return Release{blob<RingId>(), {u64()}, text()};
      case 10:
        return step();
      case 11:
        return Answer{blob<RingId>(), {u64()}, {u64()}, flag(), rows(u32() % 20), counters()};
      default:
        return StepFailed{blob<RingId>(), {u64()}, {u64()}, u32(), text()};
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
  CodecId codec() { return static_cast<CodecId>(random_.below(kCodecCount)); }
  Rows rows(uint32_t count) {
    if (count == 0) return {codec(), 0, 0, nullptr};
    Rows out{codec(), 1 + u32() % 300, count, nullptr};
    std::vector<uint8_t> bytes(count * encoded_row_bytes(out.codec, out.width));
    random_.fill(bytes);
    const auto* data = reinterpret_cast<const std::byte*>(bytes.data());
    out.bytes = std::make_shared<const std::vector<std::byte>>(data, data + bytes.size());
    return out;
  }
  Message assign() {
    Assign out{
        blob<RingId>(), {u64()}, blob<Hash256>(), 0, {}, codec(), static_cast<uint8_t>(u32()), 0, 0, 0};
    out.route.resize(1 + random_.below(6));
    for (auto& stage : out.route) {
      const uint32_t last = u32() % (limits::kMaxLayers + 3);
      stage = {blob<PeerKey>(), text(), text(), endpoints(), {u32() % (last + 1), last}};
    }
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
      one = {static_cast<OperationKind>(random_.below(5)),
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
    return out;
  }

  SeededRandom random_;
};

}  // namespace caravan::test
