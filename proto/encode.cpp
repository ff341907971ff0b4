#include "proto/encode.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <proto/wire.capnp.h>

#include <algorithm>

#include "base/error.h"
#include "base/limits.h"

namespace caravan {
namespace {

template <class Tag, size_t kSize>
capnp::Data::Reader data(const Blob<Tag, kSize>& blob) {
  return {blob.bytes.data(), kSize};
}

capnp::Data::Reader tag_data(const std::vector<BlockTag>& tags, const char* what) {
  static_assert(sizeof(BlockTag) == BlockTag::size(), "tags lie side by side");
  if (tags.size() > limits::kMaxTagsPerStep)
    fail(ErrorCode::kLimit, "{} {}, {} are allowed in a message", tags.size(), what, limits::kMaxTagsPerStep);
  return {reinterpret_cast<const kj::byte*>(tags.data()), tags.size() * BlockTag::size()};
}

bool is_control(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}

capnp::Text::Reader text(const std::string& value, const char* field) {
  if (value.size() > limits::kMaxNameBytes)
    fail(ErrorCode::kLimit, "{} of {} bytes, {} are allowed in a message", field, value.size(),
         limits::kMaxNameBytes);
  if (std::any_of(value.begin(), value.end(), is_control))
    fail(ErrorCode::kInvalidArgument, "{} holds a control character", field);
  return {value.c_str(), value.size()};
}

// Reasons come from anywhere, exceptions of the system included: they are made to fit.
template <class Builder>
void set_reason(Builder builder, std::string reason) {
  if (reason.size() > limits::kMaxReasonBytes) reason.resize(limits::kMaxReasonBytes);
  std::replace_if(reason.begin(), reason.end(), is_control, ' ');
  builder.setReason(capnp::Text::Reader(reason.c_str(), reason.size()));
}

uint32_t checked_count(size_t count, size_t limit, const char* what) {
  if (count > limit) fail(ErrorCode::kLimit, "{} {}, {} are allowed in a message", count, what, limit);
  return static_cast<uint32_t>(count);
}

template <class Builder>
void set_endpoints(Builder builder, const std::vector<std::string>& endpoints) {
  auto list = builder.initEndpoints(checked_count(endpoints.size(), limits::kMaxEndpoints, "endpoints"));
  for (uint32_t i = 0; i < list.size(); ++i) list.set(i, text(endpoints[i], "an endpoint"));
}

void set_rows(wire::Rows::Builder builder, const Rows& rows) {
  builder.setCodec(static_cast<uint8_t>(rows.codec));
  builder.setWidth(rows.width);
  builder.setCount(rows.count);
}

template <class Builder>
void set_counters(Builder builder, const std::vector<StageCounters>& counters) {
  auto list = builder.initCounters(checked_count(counters.size(), limits::kMaxPeers, "stage counters"));
  for (uint32_t i = 0; i < list.size(); ++i) {
    auto one = list[i];
    one.setStage(counters[i].stage);
    one.setRows(counters[i].rows);
    one.setComputeNs(counters[i].compute_ns);
    one.setQueueNs(counters[i].queue_ns);
    one.setBytesIn(counters[i].bytes_in);
    one.setBytesOut(counters[i].bytes_out);
  }
}

template <class Builder, class Value>
void set_epoch(Builder builder, const Value& value) {
  builder.setRing(data(value.ring));
  builder.setEpoch(value.epoch.value);
}

struct Writer {
  wire::Message::Builder root;

  void operator()(const Hello& hello) {
    auto out = root.initHello();
    out.setProtocol(hello.protocol);
    out.setName(text(hello.name, "a peer's name"));
    out.setBuild(text(hello.build, "a build"));
    out.setNumericsClass(text(hello.numerics_class, "a numerics class"));
    out.setModel(data(hello.model));
    out.setLayers(hello.layers);
    out.setIncarnation(hello.incarnation);
    out.setMemoryBytes(hello.memory_bytes);
    out.setLayerNs(hello.layer_ns);
    out.setThreads(hello.threads);
    set_endpoints(out, hello.endpoints);
    out.setFetches(hello.fetches);
    out.setWeights(data(hello.weights));
  }
  void operator()(const Welcome& welcome) {
    auto out = root.initWelcome();
    out.setProtocol(welcome.protocol);
    out.setRing(data(welcome.ring));
    out.setName(text(welcome.name, "a head's name"));
    out.setHeartbeatMs(welcome.heartbeat_ms);
    out.setPeerTimeoutMs(welcome.peer_timeout_ms);
  }
  void operator()(const Refuse& refuse) { set_reason(root.initRefuse(), refuse.reason); }
  void operator()(const Goodbye& goodbye) { set_reason(root.initGoodbye(), goodbye.reason); }
  void operator()(const Heartbeat& heartbeat) {
    auto out = root.initHeartbeat();
    out.setSentNs(heartbeat.sent_ns);
    out.setEchoNs(heartbeat.echo_ns);
    out.setKvBlocks(heartbeat.kv_blocks);
    out.setKvBlocksFree(heartbeat.kv_blocks_free);
    out.setOpenSequences(heartbeat.open_sequences);
    out.setQueuedSteps(heartbeat.queued_steps);
    out.setEpoch(heartbeat.epoch.value);
    out.setLastStep(heartbeat.last_step.value);
    out.setFetchedBytes(heartbeat.fetched_bytes);
    out.setFetchBytes(heartbeat.fetch_bytes);
  }
  void operator()(const Assign& assign) {
    auto out = root.initAssign();
    set_epoch(out, assign);
    out.setModel(data(assign.model));
    out.setStage(assign.stage);
    auto route = out.initRoute(checked_count(assign.route.size(), limits::kMaxPeers, "stages"));
    for (uint32_t i = 0; i < route.size(); ++i) {
      const RouteStage& stage = assign.route[i];
      auto one = route[i];
      one.setPeer(data(stage.peer));
      one.setName(text(stage.name, "a peer's name"));
      one.setNumericsClass(text(stage.numerics_class, "a numerics class"));
      set_endpoints(one, stage.endpoints);
      one.setFirst(stage.span.first);
      one.setLast(stage.span.last);
      one.setWeights(data(stage.weights));
    }
    out.setCodec(static_cast<uint8_t>(assign.codec));
    out.setKvType(assign.kv_type);
    out.setContext(assign.context);
    out.setMaxSequences(assign.max_sequences);
    out.setMaxRows(assign.max_rows);
    out.setWeights(data(assign.weights));
  }
  void operator()(const Contract& contract) {
    auto out = root.initContract();
    set_epoch(out, contract);
    out.setEdge(contract.edge);
    out.setToHead(contract.to_head);
    out.setHash(data(contract.hash));
    out.setMatched(contract.matched);
  }
  void operator()(const Ready& ready) {
    auto out = root.initReady();
    set_epoch(out, ready);
    out.setKvBlocks(ready.kv_blocks);
    out.setArchiveBlocks(ready.archive.blocks);
    out.setArchiveBlocksToday(ready.archive.blocks_today);
    out.setArchiveBlocksADay(ready.archive.blocks_a_day);
    const StageForecast& forecast = ready.forecast;
    auto tokens = out.initTokenNs(
        checked_count(forecast.token_ns.size(), limits::kForecastTokens, "expected times of tokens"));
    for (uint32_t i = 0; i < tokens.size(); ++i) tokens.set(i, forecast.token_ns[i]);
    auto prompts = out.initPromptNs(
        checked_count(forecast.prompt_ns.size(), limits::kForecastPrompts, "expected times of prompts"));
    for (uint32_t i = 0; i < prompts.size(); ++i) prompts.set(i, forecast.prompt_ns[i]);
  }
  void operator()(const ArchiveLimit& limit) {
    auto out = root.initArchiveLimit();
    set_epoch(out, limit);
    out.setBlocks(limit.room.blocks);
    out.setBlocksToday(limit.room.blocks_today);
    out.setBlocksADay(limit.room.blocks_a_day);
  }
  void operator()(const NotReady& not_ready) {
    auto out = root.initNotReady();
    set_epoch(out, not_ready);
    out.setEdge(not_ready.edge);
    set_reason(out, not_ready.reason);
  }
  void operator()(const Release& release) {
    auto out = root.initRelease();
    set_epoch(out, release);
    set_reason(out, release.reason);
  }
  void operator()(const Step& step) {
    auto out = root.initStep();
    set_epoch(out, step);
    out.setStep(step.step.value);
    out.setCanary(step.canary);
    set_operations(out, step);
    set_ranges(out, step);
    set_rows(out.initRows(), step.rows);
    set_counters(out, step.counters);
    set_lost(out, step);
    out.setTags(tag_data(step.tags, "tags of completed blocks"));
    out.setLoadTags(tag_data(step.load_tags, "tags of blocks to load"));
  }
  void operator()(const ArchiveProbe& probe) {
    auto out = root.initArchiveProbe();
    set_epoch(out, probe);
    out.setProbe(probe.probe);
    out.setToHead(probe.to_head);
    out.setTags(tag_data(probe.tags, "tags of a probe"));
    out.setBlocks(probe.blocks);
    out.setLoadNs(probe.load_ns);
  }
  void operator()(const Answer& answer) {
    auto out = root.initAnswer();
    set_epoch(out, answer);
    out.setStep(answer.step.value);
    out.setCanary(answer.canary);
    set_rows(out.initRows(), answer.rows);
    set_counters(out, answer.counters);
    set_lost(out, answer);
  }
  void operator()(const StepFailed& failed) {
    auto out = root.initStepFailed();
    set_epoch(out, failed);
    out.setStep(failed.step.value);
    out.setStage(failed.stage);
    set_reason(out, failed.reason);
  }

  void operator()(const ManifestRequest&) { root.initManifestRequest(); }
  void operator()(const ManifestInfo& info) {
    auto out = root.initManifestInfo();
    out.setModel(data(info.model));
    out.setRecord(data(info.record));
    out.setRecordBytes(info.record_bytes);
    out.setHashedBytes(info.hashed_bytes);
    out.setTotalBytes(info.total_bytes);
    set_reason(out, info.reason);
  }
  void operator()(const ShardRequest& request) {
    auto out = root.initShardRequest();
    out.setGroup(data(request.group));
    out.setOffset(request.offset);
    out.setLength(request.length);
  }
  void operator()(const ShardBytes& shard) {
    auto out = root.initShardBytes();
    out.setGroup(data(shard.group));
    out.setOffset(shard.offset);
    out.setLength(checked_count(shard.byte_count(), limits::kShardPartBytes, "bytes of a group"));
  }
  void operator()(const ShardRefused& refused) {
    auto out = root.initShardRefused();
    out.setGroup(data(refused.group));
    out.setOffset(refused.offset);
    set_reason(out, refused.reason);
  }
  void operator()(const Fetch& fetch) {
    auto out = root.initFetch();
    out.setRing(data(fetch.ring));
    out.setPlan(fetch.plan);
    out.setFirst(fetch.span.first);
    out.setLast(fetch.span.last);
  }
  void operator()(const Fetched& fetched) {
    auto out = root.initFetched();
    out.setRing(data(fetched.ring));
    out.setPlan(fetched.plan);
    set_reason(out, fetched.reason);
  }

  static void set_operations(wire::Step::Builder out, const Step& step) {
    const auto& operations = step.operations;
    auto list =
        out.initOperations(checked_count(operations.size(), limits::kMaxOperationsPerStep, "operations"));
    for (uint32_t i = 0; i < list.size(); ++i) {
      auto one = list[i];
      one.setKind(static_cast<uint8_t>(operations[i].kind));
      one.setSequence(operations[i].sequence.value);
      one.setNumber(operations[i].number);
      one.setSource(operations[i].source.value);
      one.setPositions(operations[i].positions);
    }
  }
  template <class Out, class In>
  static void set_lost(Out out, const In& in) {
    auto list = out.initLost(checked_count(in.lost.size(), limits::kMaxRangesPerStep, "lost sequences"));
    for (uint32_t i = 0; i < list.size(); ++i) list.set(i, in.lost[i].value);
    out.setLostReason(in.lost_reason.substr(0, limits::kMaxReasonBytes));
  }
  static void set_ranges(wire::Step::Builder out, const Step& step) {
    auto list = out.initRanges(checked_count(step.ranges.size(), limits::kMaxRangesPerStep, "row ranges"));
    for (uint32_t i = 0; i < list.size(); ++i) {
      const RowRange& range = step.ranges[i];
      auto one = list[i];
      one.setSequence(range.sequence.value);
      one.setNumber(range.number);
      one.setFirstPosition(range.first_position);
      one.setCount(range.count);
      one.setKernelClass(static_cast<uint8_t>(range.kernel_class));
      one.setAnswer(static_cast<uint8_t>(range.answer));
      one.setAnswerCount(range.answer_count);
    }
  }
};

SharedBytes rows_of(const Message& message) {
  const SharedBytes& rows = payload(message);
  if (rows && rows->size() > limits::kMaxFrameBytes)
    fail(ErrorCode::kLimit, "{} bytes of rows, a frame holds {}", rows->size(), limits::kMaxFrameBytes);
  return rows && !rows->empty() ? rows : nullptr;
}

}  // namespace

Frames encode(const Message& message) {
  Frames frames;
  frames.rows = rows_of(message);
  capnp::MallocMessageBuilder builder;
  auto root = builder.initRoot<wire::Message>();
  root.setVersion(kProtocolVersion);
  std::visit(Writer{root}, message);
  const size_t bytes = capnp::computeSerializedSizeInWords(builder) * sizeof(capnp::word);
  if (bytes > limits::kMaxHeaderBytes)
    fail(ErrorCode::kLimit, "a {} of {} bytes, a header holds {}", name(message), bytes,
         limits::kMaxHeaderBytes);
  frames.header.resize(bytes);
  kj::ArrayOutputStream out(
      kj::arrayPtr(reinterpret_cast<kj::byte*>(frames.header.data()), frames.header.size()));
  capnp::writeMessage(out, builder);
  return frames;
}

}  // namespace caravan
