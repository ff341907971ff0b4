#include "proto/encode.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"
#include "base/limits.h"
#include "proto/framing.h"
#include "tests/support/random_message.h"

namespace caravan {
namespace {

using test::MessageMaker;

const DecodeOptions kOptions{encoded_row_bytes};

// Two messages say the same when they have the same bytes and the same rows: the encoding has one spelling.
void expect_same(const Message& a, const Message& b) {
  const Frames left = encode(a), right = encode(b);
  EXPECT_TRUE(left.header == right.header) << name(a);
  EXPECT_TRUE(left.rows == right.rows);
}

ErrorCode code_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_FALSE(error.message().empty());
    return error.code();
  }
  ADD_FAILURE() << "no error";
  return ErrorCode::kCancelled;
}

TEST(Encode, EveryMessageComesBackAsItWas) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    MessageMaker maker(seed);
    for (size_t kind = 0; kind < std::variant_size_v<Message>; ++kind) {
      const Message message = maker.make(kind);
      const Frames frames = encode(message);
      const Message back = decode(frames.header, frames.rows, kOptions);
      ASSERT_EQ(back.index(), message.index());
      expect_same(message, back);
    }
  }
}

TEST(Encode, TheFieldsOfAStepArriveOneByOne) {
  Step step;
  step.ring.bytes = {1, 2, 3};
  step.epoch = {4};
  step.step = {5};
  step.canary = true;
  step.operations = {{OperationKind::kFork, {6}, 7, {8}, 9}};
  step.ranges = {{{10}, 11, 12, 2, KernelClass::kFew, AnswerKind::kRow, 1}};
  step.rows = {CodecId::kBf16, 3, 2, std::make_shared<const std::vector<std::byte>>(12, std::byte{13})};
  step.counters = {{14, 15, 16, 17, 18, 19}};
  const Frames frames = encode(step);
  const Message message = decode(frames.header, frames.rows, kOptions);
  const auto& back = std::get<Step>(message);
  EXPECT_EQ(back.ring, step.ring);
  EXPECT_EQ(back.epoch.value, 4u);
  EXPECT_EQ(back.step.value, 5u);
  EXPECT_TRUE(back.canary);
  ASSERT_EQ(back.operations.size(), 1u);
  EXPECT_EQ(back.operations[0].kind, OperationKind::kFork);
  EXPECT_EQ(back.operations[0].sequence.value, 6u);
  EXPECT_EQ(back.operations[0].number, 7u);
  EXPECT_EQ(back.operations[0].source.value, 8u);
  EXPECT_EQ(back.operations[0].positions, 9u);
  ASSERT_EQ(back.ranges.size(), 1u);
  EXPECT_EQ(back.ranges[0].sequence.value, 10u);
  EXPECT_EQ(back.ranges[0].number, 11u);
  EXPECT_EQ(back.ranges[0].first_position, 12u);
  EXPECT_EQ(back.ranges[0].count, 2u);
  EXPECT_EQ(back.ranges[0].kernel_class, KernelClass::kFew);
  EXPECT_EQ(back.ranges[0].answer, AnswerKind::kRow);
  EXPECT_EQ(back.ranges[0].answer_count, 1u);
  EXPECT_EQ(back.rows.codec, CodecId::kBf16);
  EXPECT_EQ(back.rows.width, 3u);
  EXPECT_EQ(back.rows.bytes->data(), step.rows.bytes->data()) << "rows are shared, not copied";
  EXPECT_EQ(back.counters[0].bytes_out, 19u);
}

TEST(Encode, AnAnswerNamesTheSequencesThatWereLost) {
  Answer answer;
  answer.lost = {{7}, {9}};
  answer.lost_reason = "the disk is full";
  const Frames frames = encode(answer);
  const Message message = decode(frames.header, nullptr, kOptions);
  EXPECT_EQ(std::get<Answer>(message).lost, answer.lost);
  EXPECT_EQ(std::get<Answer>(message).lost_reason, "the disk is full");
}

TEST(Encode, WhatAStageExpectsArrivesInItsOrderOrNotAtAll) {
  Ready ready{{{1, 2}}, {3}, 4};
  const auto round = [&ready] {
    return std::get<Ready>(decode(encode(ready).header, nullptr, kOptions)).forecast;
  };
  EXPECT_FALSE(round().known());
  for (uint64_t i = 0; i < limits::kForecastTokens; ++i) ready.forecast.token_ns.push_back(100 + i);
  for (uint64_t i = 0; i < limits::kForecastPrompts; ++i) ready.forecast.prompt_ns.push_back(UINT64_MAX - i);
  EXPECT_TRUE(round().known());
  EXPECT_EQ(round().token_ns, ready.forecast.token_ns);
  EXPECT_EQ(round().prompt_ns, ready.forecast.prompt_ns);
}

TEST(Encode, HalfAForecastIsRefused) {
  const auto code = [](size_t tokens, size_t prompts) {
    Ready ready;
    ready.forecast = {std::vector<uint64_t>(tokens, 1), std::vector<uint64_t>(prompts, 1)};
    return code_of([&] { decode(encode(ready).header, nullptr, kOptions); });
  };
  constexpr size_t kTokens = limits::kForecastTokens, kPrompts = limits::kForecastPrompts;
  EXPECT_EQ(code(kTokens - 1, kPrompts), ErrorCode::kMalformed);
  EXPECT_EQ(code(kTokens, 1), ErrorCode::kMalformed);
  EXPECT_EQ(code(0, kPrompts), ErrorCode::kMalformed);
  EXPECT_EQ(code(kTokens, 0), ErrorCode::kMalformed);
  EXPECT_EQ(code(kTokens + 1, kPrompts), ErrorCode::kLimit);  // is not even sent
}

TEST(Encode, TheRoomOfArchivesArrives) {
  const Ready ready{{{1, 2}}, {3}, 4, {}, {5, 8, 6}};
  EXPECT_EQ(std::get<Ready>(decode(encode(ready).header, nullptr, kOptions)).archive, (ArchiveRoom{5, 8, 6}));
  const ArchiveLimit limit{{{1, 2}}, {3}, {7, 1, UINT64_MAX}};
  const Message message = decode(encode(limit).header, nullptr, kOptions);
  const auto& back = std::get<ArchiveLimit>(message);
  EXPECT_EQ(back.ring, limit.ring);
  EXPECT_EQ(back.epoch, limit.epoch);
  EXPECT_EQ(back.room, limit.room);
}

BlockTag tag(uint8_t first) {
  return {{first, 1, 2, 3}};
}

TEST(Encode, TagsArriveInTheirOrder) {
  Step step;
  step.tags = {tag(1), tag(2)};
  step.load_tags = {tag(3), tag(4), tag(5)};
  const Message message = decode(encode(step).header, nullptr, kOptions);
  EXPECT_EQ(std::get<Step>(message).tags, step.tags);
  EXPECT_EQ(std::get<Step>(message).load_tags, step.load_tags);
}

TEST(Encode, TheFieldsOfAProbeArriveOneByOne) {
  const ArchiveProbe question{{{1, 2}}, {3}, 4, false, {tag(5), tag(6)}, 2, 7};
  const ArchiveProbe answer{{{1, 2}}, {3}, 4, true, {}, 2, 7};
  for (const ArchiveProbe& probe : {question, answer}) {
    const Message message = decode(encode(probe).header, nullptr, kOptions);
    const auto& back = std::get<ArchiveProbe>(message);
    EXPECT_EQ(back.ring, probe.ring);
    EXPECT_EQ(back.epoch, probe.epoch);
    EXPECT_EQ(back.probe, 4u);
    EXPECT_EQ(back.to_head, probe.to_head);
    EXPECT_EQ(back.tags, probe.tags);
    EXPECT_EQ(back.blocks, 2u);
    EXPECT_EQ(back.load_ns, 7u);
    EXPECT_EQ(is_for_head(probe), probe.to_head);
  }
}

TEST(Encode, ContradictionsInAProbeAreRefused) {
  const auto code = [](const std::function<void(ArchiveProbe&)>& spoil) {
    ArchiveProbe probe{{}, {}, 1, false, {tag(1), tag(2)}, 2, 0};
    spoil(probe);
    const Frames frames = encode(probe);
    return code_of([&] { decode(frames.header, nullptr, kOptions); });
  };
  EXPECT_EQ(code([](ArchiveProbe& probe) { probe.blocks = 1; }), ErrorCode::kMalformed);
  EXPECT_EQ(code([](ArchiveProbe& probe) { probe.blocks = 3; }), ErrorCode::kMalformed);
  EXPECT_EQ(code([](ArchiveProbe& probe) { probe.to_head = true; }), ErrorCode::kMalformed);
  EXPECT_EQ(code([](ArchiveProbe& probe) { probe = {{}, {}, 1, true, {}, limits::kMaxTagsPerStep + 1, 0}; }),
            ErrorCode::kLimit);
}

// Beside the tags that it completes, a step has room for a whole sequence to load.
TEST(Encode, TheTagsOfAStepFitItsHeader) {
  Step step;
  step.operations.resize(limits::kMaxOperationsPerStep / 8);
  step.ranges.resize(limits::kMaxRangesPerStep, {{1}, 1, 31, 2, KernelClass::kMany, AnswerKind::kRow, 1});
  step.counters.resize(limits::kMaxPeers);
  step.lost.resize(limits::kMaxRangesPerStep);
  step.lost_reason.assign(limits::kMaxReasonBytes, 'x');
  step.rows = {CodecId::kF32, 1, 512, std::make_shared<const std::vector<std::byte>>(2048)};
  step.tags.resize(limits::kMaxRangesPerStep);
  step.load_tags.resize(limits::kMaxTagsPerStep);
  const Frames frames = encode(step);
  decode(frames.header, frames.rows, kOptions);
  for (std::vector<BlockTag>* tags : {&step.tags, &step.load_tags}) {
    Step more = step;
    auto& spoilt = tags == &step.tags ? more.tags : more.load_tags;
    spoilt.resize(limits::kMaxTagsPerStep + 1);
    EXPECT_EQ(code_of([&] { encode(more); }), ErrorCode::kLimit);
  }
  ArchiveProbe probe;
  probe.tags.resize(limits::kMaxTagsPerStep);
  probe.blocks = limits::kMaxTagsPerStep;
  decode(encode(probe).header, nullptr, kOptions);
}

TEST(Encode, BlocksAreCountedWhereTheyEnd) {
  const auto completed = [](uint32_t first, uint32_t count) {
    return completed_blocks({{1}, 1, first, count, KernelClass::kMany, AnswerKind::kNothing, 0});
  };
  EXPECT_EQ(completed(0, 31), 0u);
  EXPECT_EQ(completed(0, 32), 1u);
  EXPECT_EQ(completed(31, 1), 1u);
  EXPECT_EQ(completed(32, 31), 0u);
  EXPECT_EQ(completed(10, 100), 3u);
  EXPECT_EQ(loaded_blocks({OperationKind::kLoad, {1}, 1, {}, 96}), 3u);
  EXPECT_EQ(loaded_blocks({OperationKind::kFork, {1}, 1, {2}, 96}), 0u);
}

TEST(Encode, BytesThatAreCutOrFlippedGiveAnErrorOrAMessage) {
  size_t refused = 0, tried = 0;
  for (uint64_t seed = 100; seed < 130; ++seed) {
    MessageMaker maker(seed);
    SeededRandom random(seed);
    for (size_t kind = 0; kind < std::variant_size_v<Message>; ++kind) {
      const Frames frames = encode(maker.make(kind));
      for (int i = 0; i < 30; ++i) {
        std::vector<std::byte> bytes = frames.header;
        if (i % 3 == 0) {
          bytes.resize(random.below(bytes.size()));
        } else {
          for (uint64_t flips = 1 + random.below(4); flips > 0; --flips)
            bytes[random.below(bytes.size())] ^= static_cast<std::byte>(1u << random.below(8));
        }
        ++tried;
        try {
          decode(bytes, frames.rows, kOptions);
        } catch (const Error& error) {
          ++refused;
          EXPECT_TRUE(error.code() == ErrorCode::kMalformed || error.code() == ErrorCode::kLimit ||
                      error.code() == ErrorCode::kUnsupported)
              << error.message();
        }
      }
    }
  }
  EXPECT_GT(refused, tried / 3);
}

TEST(Encode, ReadsHeadersOfAnyAlignment) {
  const Frames frames = encode(MessageMaker(7).make(10));
  for (size_t shift = 0; shift < 8; ++shift) {
    std::vector<std::byte> room(frames.header.size() + shift);
    std::copy(frames.header.begin(), frames.header.end(), room.begin() + shift);
    expect_same(decode(std::span(room).subspan(shift), frames.rows, kOptions),
                decode(frames.header, frames.rows, kOptions));
  }
}

TEST(Encode, RowsMustHaveTheBytesThatTheirHeaderImplies) {
  Step step;
  step.ranges = {{{1}, 1, 0, 3, KernelClass::kMany, AnswerKind::kNothing, 0}};
  for (const CodecId codec : {CodecId::kF32, CodecId::kBf16, CodecId::kInt8}) {
    const size_t right = 3 * encoded_row_bytes(codec, 100);
    for (const size_t bytes : {right, right - 1, right + 1, right * 2}) {
      step.rows = {codec, 100, 3, std::make_shared<const std::vector<std::byte>>(bytes)};
      const Frames frames = encode(step);
      if (bytes == right)
        decode(frames.header, frames.rows, kOptions);
      else
        EXPECT_EQ(code_of([&] { decode(frames.header, frames.rows, kOptions); }), ErrorCode::kMalformed);
    }
    const Frames frames = encode(step);
    EXPECT_EQ(code_of([&] { decode(frames.header, nullptr, kOptions); }), ErrorCode::kMalformed);
    EXPECT_EQ(code_of([&] { decode(frames.header, nullptr); }), ErrorCode::kMalformed);
    EXPECT_EQ(announced_row_bytes(frames.header, kOptions), right);
  }
  const Frames without = encode(Heartbeat{});
  EXPECT_EQ(code_of([&] { decode(without.header, step.rows.bytes, kOptions); }), ErrorCode::kMalformed);
}

TEST(Encode, ContradictionsInAStepAreRefused) {
  const auto refuse = [](const std::function<void(Step&)>& spoil) {
    Step step;
    step.ranges = {{{1}, 1, 0, 2, KernelClass::kMany, AnswerKind::kRow, 1}};
    step.rows = {CodecId::kF32, 4, 2, std::make_shared<const std::vector<std::byte>>(32)};
    spoil(step);
    const Frames frames = encode(step);
    code_of([&] { decode(frames.header, frames.rows, kOptions); });
  };
  refuse([](Step& step) { step.ranges[0].count = 3; });
  refuse([](Step& step) { step.ranges[0].count = 0; });
  refuse([](Step& step) { step.ranges.clear(); });
  refuse([](Step& step) { step.ranges[0].answer_count = 3; });
  refuse([](Step& step) { step.ranges[0].answer_count = 0; });
  refuse([](Step& step) { step.ranges[0].answer = AnswerKind::kNothing; });
  refuse([](Step& step) { step.ranges[0].answer = static_cast<AnswerKind>(4); });
  refuse([](Step& step) { step.ranges[0].kernel_class = static_cast<KernelClass>(2); });
  refuse([](Step& step) { step.ranges[0].first_position = limits::kMaxContext; });
  refuse([](Step& step) { step.rows.codec = static_cast<CodecId>(kCodecCount); });
  refuse([](Step& step) { step.rows.width = limits::kMaxWidth + 1; });
  refuse([](Step& step) { step.operations = {{static_cast<OperationKind>(6), {1}, 1, {}, 0}}; });
  refuse([](Step& step) { step.operations = {{OperationKind::kOpen, {1}, 1, {}, limits::kMaxContext + 1}}; });
}

TEST(Encode, TheLargestStepFitsAHeader) {
  Step step;
  step.operations.resize(limits::kMaxOperationsPerStep);
  step.ranges.resize(limits::kMaxRangesPerStep, {{1}, 1, 0, 2, KernelClass::kMany, AnswerKind::kRow, 1});
  step.counters.resize(limits::kMaxPeers);
  step.lost.resize(limits::kMaxRangesPerStep);
  step.lost_reason.assign(limits::kMaxReasonBytes, 'x');
  step.rows = {CodecId::kF32, 1, 512, std::make_shared<const std::vector<std::byte>>(2048)};
  const Frames frames = encode(step);
  EXPECT_LE(frames.header.size(), limits::kMaxHeaderBytes);
  decode(frames.header, frames.rows, kOptions);
}

TEST(Encode, WhatIsTooLargeIsNotSent) {
  Step step;
  step.operations.resize(limits::kMaxOperationsPerStep + 1);
  EXPECT_EQ(code_of([&] { encode(step); }), ErrorCode::kLimit);
  Hello hello;
  hello.name.assign(limits::kMaxNameBytes + 1, 'x');
  EXPECT_EQ(code_of([&] { encode(hello); }), ErrorCode::kLimit);
  hello.name = "two\nlines";
  EXPECT_EQ(code_of([&] { encode(hello); }), ErrorCode::kInvalidArgument);
  // A reason is made to fit: it comes from anywhere.
  const Frames frames = encode(Goodbye{std::string(5000, '\n')});
  const Message message = decode(frames.header, nullptr);
  EXPECT_EQ(std::get<Goodbye>(message).reason, std::string(limits::kMaxReasonBytes, ' '));
}

TEST(Encode, AnotherVersionIsNamed) {
  Frames frames = encode(Heartbeat{});
  // One segment; its table is a word, the root pointer another; then the version.
  frames.header[16] = std::byte{kProtocolVersion + 1};
  try {
    decode(frames.header, nullptr);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_NE(error.message().find(fmt::format("version {}", kProtocolVersion + 1)), std::string::npos)
        << error.message();
  }
  EXPECT_EQ(code_of([] { decode(std::vector<std::byte>(32), nullptr); }), ErrorCode::kMalformed);
  EXPECT_EQ(code_of([] { decode(std::vector<std::byte>(limits::kMaxHeaderBytes + 8), nullptr); }),
            ErrorCode::kLimit);
  EXPECT_EQ(code_of([] { decode({}, nullptr); }), ErrorCode::kMalformed);
}

TEST(Framing, EnvelopesComeBackAsTheyWere) {
  SeededRandom random(3);
  for (unsigned kind = 1; kind <= 11; ++kind)
    for (const Lane lane : {Lane::kDecode, Lane::kBulk}) {
      const Envelope envelope{static_cast<FrameKind>(kind), lane, random.next(), random.next()};
      const std::vector<std::byte> payload(random.below(50), std::byte{7});
      const std::vector<std::byte> frame = pack(envelope, payload);
      const Unpacked back = unpack(frame);
      EXPECT_EQ(back.envelope.kind, envelope.kind);
      EXPECT_EQ(back.envelope.lane, envelope.lane);
      EXPECT_EQ(back.envelope.number, envelope.number);
      EXPECT_EQ(back.envelope.amount, envelope.amount);
      EXPECT_TRUE(std::equal(payload.begin(), payload.end(), back.payload.begin(), back.payload.end()));
    }
}

TEST(Framing, RefusesWhatIsNoFrame) {
  const std::vector<std::byte> good = pack({FrameKind::kPing, Lane::kDecode, 1, 2});
  for (size_t size = 0; size < good.size(); ++size)
    EXPECT_EQ(code_of([&] { unpack(std::span(good).first(size)); }), ErrorCode::kMalformed);
  const auto with = [&](size_t at, unsigned value) {
    auto frame = good;
    frame[at] = static_cast<std::byte>(value);
    return code_of([&] { unpack(frame); });
  };
  EXPECT_EQ(with(0, kFramingVersion + 1), ErrorCode::kUnsupported);
  EXPECT_EQ(with(1, 0), ErrorCode::kUnsupported);
  EXPECT_EQ(with(1, 12), ErrorCode::kUnsupported);
  EXPECT_EQ(with(2, 2), ErrorCode::kMalformed);
  EXPECT_EQ(with(3, 1), ErrorCode::kMalformed);
  EXPECT_EQ(code_of([] { unpack(std::vector<std::byte>(kEnvelopeBytes + limits::kMaxHeaderBytes + 1)); }),
            ErrorCode::kLimit);
}

}  // namespace
}  // namespace caravan
